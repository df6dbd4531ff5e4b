"""What every test takes for granted: float64, one thread for BLAS, and the same drawn examples in CI.

With ``RFHO_ANNOTATIONS=1`` jaxtyping and beartype check at run time the shapes that annotations
promise. That makes tracing half as slow again, so a part of the suite runs with them (see the
Makefile), and the whole of it as users run the library. Their hook has to be in place before
`rfho` is first imported.
"""

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before NumPy and SciPy load it: its idle threads spin, and the cores belong to the other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
# A tenth of tracing, for what nobody reads.
jax.config.update("jax_traceback_in_locations_limit", 0)

if os.environ.get("RFHO_ANNOTATIONS") == "1":
    jaxtyping.install_import_hook("rfho", "beartype.beartype")

# What a shell starts in the background is deaf to Ctrl-C, and would be here, where it is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Compilation makes the first example slow and says nothing about the others: no deadline.
hypothesis.settings.register_profile(
    "local",
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("ci"), max_examples=3)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What files of tests compute when they are imported is ready sooner, too."""
    import compiler  # it imports rfho, which waits for the hook

    with compiler.compiling_once(), compiler.compiling_quickly():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only `make soak` runs."""
    if "soak" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector need not walk through it after every few hundred tracers."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


# What is compiled here must be what users compile: exactness, memory, time, and what XLA's passes have done
# before to whole methods. Elsewhere it compiles quickly: half of the time of all tests is compiling.
# In `make soak` and on newer releases of JAX all is compiled in full, with it what the methods promise.
AS_USERS_COMPILE = {
    "test_agreement",
    "test_auto",
    "test_benchmarks",
    "test_checkpoint",
    "test_experiment_time_memory",
    "test_long_reverse",
    "test_optimisers",
    "test_oracles",
    "test_reversible",
    "test_room",
    "test_shelf",
    "test_sweeps",
}
assert {path.stem for path in Path(__file__).parent.glob("test_*.py")} >= AS_USERS_COMPILE


def as_users_compile(path: Path, marks: str) -> bool:
    """Whether a file's programs are compiled in full: all are in ``make soak`` and on newer releases of JAX."""
    chosen = path.stem in AS_USERS_COMPILE or path.parent.name == "programs"
    return chosen or "soak" in marks or jax.__version_info__ >= (0, 11)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Programs but short ones are given back after each file: each maps memory, and Linux allows 65530 pieces."""
    all_passes = as_users_compile(request.path, request.config.getoption("-m"))
    import compiler  # it imports rfho, which waits for the hook

    passes = contextlib.nullcontext() if all_passes else compiler.compiling_quickly()
    with compiler.compiling_once(), passes:
        yield
    jax.clear_caches()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked, so that misuse meets the library's own words, as it does for users.

    Use it as ``@pytest.mark.usefixtures("unchecked")`` where an argument of the wrong type is passed.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
