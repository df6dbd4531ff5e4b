"""How programs that tests start have theirs compiled: quickly, as far as this release of JAX knows how."""

from importlib.metadata import version

_OLD_EMITTERS = " --xla_cpu_use_fusion_emitters=false"  # gone from JAX 0.12


def quickly(devices: int = 1) -> str:
    """The ``XLA_FLAGS`` for so many CPU devices, to be set before JAX starts."""
    major, minor = map(int, version("jax").split(".")[:2])
    flags = (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        " --xla_cpu_parallel_codegen_split_count=1"
    )
    return flags + (_OLD_EMITTERS if (major, minor) < (0, 11) else "")
