"""Very long horizons: segments driven from Python, states on a shelf, data from the host."""

import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import (
    LongReverseHyperGradient,
    ReverseHyperGradient,
    segmented_run,
    segments,
)

TARGETS = np.random.default_rng(0).normal(size=(23, 3))
HYPER = {"lr": 0.05, "momentum": 0.8}


def problem(train):
    dynamics = rfho.Descent(
        lambda w, hyper, batch: jnp.mean((jnp.sin(w) - batch) ** 2),
        lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"]),
        init=jnp.array([0.1, 0.2, 0.3]),
    )
    objective = lambda w, hyper, batch: jnp.sum(w**2) + hyper["lr"]  # noqa: E731
    return rfho.Problem(dynamics, objective, train, None, horizon=23)


ON_DEVICE = problem(rfho.Indexed(TARGETS, np.arange(23)[:, None]))
FROM_HOST = problem(rfho.HostStream(lambda t: TARGETS[t : t + 1]))


def agree(ours, theirs):
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-14)
    for name in HYPER:
        np.testing.assert_allclose(ours.hypergradient[name], theirs.hypergradient[name], rtol=1e-12)


@pytest.fixture(scope="module")
def exact():
    return rfho.hyper_gradient(ON_DEVICE, HYPER, ReverseHyperGradient())


@pytest.mark.parametrize("slots", [None, 1, 2, 4])
@pytest.mark.parametrize("segment", [5, 23, 40])
def test_segments_change_nothing(exact, segment, slots):
    method = LongReverseHyperGradient(segment, slots=slots)
    agree(rfho.hyper_gradient(ON_DEVICE, HYPER, method), exact)


def test_states_may_lie_on_disk(exact, tmp_path):
    method = LongReverseHyperGradient(5, shelf=rfho.DiskShelf(tmp_path))
    agree(rfho.hyper_gradient(ON_DEVICE, HYPER, method), exact)
    assert list(tmp_path.iterdir()) == [], "nothing may be left behind"


def test_the_device_has_its_next_segment_before_a_state_is_laid_down(monkeypatch):
    """A copy that takes longer than a segment is hidden too, if those beside it are short."""
    seen = []

    class Noted(rfho.HostShelf):
        def put(self, handle, slot, state):
            seen.append(("put", slot))
            super().put(handle, slot, state)

    def advance(problem, hyper, state, start, length):
        seen.append(("begun", int(start) // 5))
        return segments.advance(problem, hyper, state, start, length)

    monkeypatch.setattr(segmented_run, "advance", advance)
    rfho.hyper_gradient(ON_DEVICE, HYPER, LongReverseHyperGradient(5, shelf=Noted()))
    later = [("begun", 0), *((what, i) for i in range(1, 5) for what in ("begun", "put"))]
    assert seen == [("put", 0), *later]


def test_data_may_come_from_the_host(exact):
    agree(rfho.hyper_gradient(FROM_HOST, HYPER, LongReverseHyperGradient(10)), exact)


def test_host_batches_are_the_same_in_a_compiled_loop(exact):
    agree(rfho.hyper_gradient(FROM_HOST, HYPER, ReverseHyperGradient()), exact)


def test_progress_ends_at_its_total():
    seen = []
    method = LongReverseHyperGradient(5, on_segment=lambda done, total: seen.append((done, total)))
    rfho.hyper_gradient(ON_DEVICE, HYPER, method)
    assert seen == sorted(seen)
    assert seen[-1] == (15, 15)


def test_tune_runs_segments_from_python():
    options = {"optim": optax.sgd(0.01), "steps": 3, "domain": rfho.NonNegative()}
    long = rfho.tune(ON_DEVICE, HYPER, method=LongReverseHyperGradient(10), **options)
    short = rfho.tune(ON_DEVICE, HYPER, **options)
    np.testing.assert_allclose(long.hyper["lr"], short.hyper["lr"], rtol=1e-12)
    np.testing.assert_allclose(long.value, short.value, rtol=1e-12)


IN_A_CHILD = """
import gc
from pathlib import Path
import jax, jax.numpy as jnp, optax, rfho

def loss(w, hyper, batch):
    return jnp.mean((jnp.sin(w) - 1) ** 2)

dynamics = rfho.Descent(
    loss, lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"]), jnp.zeros(100_000)
)
segments, whole = rfho.LongReverseHyperGradient(25, slots=3), rfho.ReverseHyperGradient()
hyper = {"lr": 0.05, "momentum": 0.8}
for method, horizon, estimates in [(segments, 100, 1), (segments, 100, 8), (segments, 600, 1), (whole, 600, 1)]:
    problem = rfho.Problem(dynamics, loss, None, None, horizon)
    for _ in range(estimates):
        rfho.hyper_gradient(problem, hyper, method)
    gc.collect()  # what threads of JAX have let go is freed here, or by its next program
    kept = [array for array in jax.live_arrays() if array.size >= 100_000]
    # The peak of this program alone: getrusage has that of the process which it was forked from, too.
    status = Path("/proc/self/status").read_text()
    print(status.split("VmHWM:")[1].split()[0], len(kept))
"""


@pytest.fixture(scope="module")
def grown():
    """The peak of memory in MB, and how many arrays of a state's size are left, one after the other in a process."""
    # glibc keeps what is freed in as many arenas as there are threads, and how much it keeps is chance:
    # in one arena that gives everything back, ten peaks of the same program lie within 10 MB.
    frugal = {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **frugal}
    command = [sys.executable, "-c", IN_A_CHILD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(int(kilobytes) / 1000, int(kept)) for kilobytes, kept in lines]


def test_memory_does_not_grow_with_the_horizon(grown):
    """A state has 0.8 MB: six hundred of them would show, as they do where all are kept."""
    _, (short, _), (long, _), (everything, _) = grown
    assert long < short + 50
    assert everything > short + 300


def test_memory_does_not_grow_with_the_number_of_estimates(grown):
    (once, kept_of_one), (often, kept_of_many), *_ = grown
    assert often < once + 40
    assert kept_of_many == kept_of_one == 1, "the initial parameters"
