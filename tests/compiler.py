"""Compiler options with which tests are ready sooner, as far as this release of JAX knows them."""

import jax


def known(options):
    """Those of ``options`` that the compiler does not refuse."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


def _is_known(name, value):
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Half the time to compile. The option is gone from JAX 0.12 on.
OLD_EMITTERS = known({"xla_cpu_use_fusion_emitters": False})

UNOPTIMISED = {"xla_backend_optimization_level": 0}
