"""What cannot fit into memory is refused before anything of it is allocated, by whatever verb is called."""

import inspect
import subprocess
import sys
import textwrap
import time

import jax.numpy as jnp
import optax
import pytest
from zoo import ZOO

import rfho
from rfho._programs.trees import as_code
from rfho.choice import Parts, Rates


def loss(w, hyper, batch):
    return jnp.mean((w - batch) ** 2) + hyper["l2"] * jnp.mean(w**2)


def problem_of(size, horizon):
    dynamics = rfho.HeavyBall(
        loss,
        rate=lambda hyper, t: hyper["lr"],
        momentum=lambda hyper, t: 0.9,
        init=lambda hyper: jnp.zeros(size),
    )
    return rfho.Problem(dynamics, loss, jnp.ones(()), jnp.zeros(()), horizon)


HYPER = {"lr": 0.1, "l2": 0.1}
VERBS = {
    "hyper_gradient": lambda problem: rfho.hyper_gradient(problem, HYPER),
    "tune": lambda problem: rfho.tune(problem, HYPER, steps=1),
    "iterate": lambda problem: next(rfho.iterate(problem, HYPER, steps=1)),
    "tune_many": lambda problem: rfho.tune_many(problem, [HYPER, HYPER], steps=1),
    "init": lambda problem: rfho.Tuner().init(problem, HYPER),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_what_cannot_fit_in_two_seconds_and_says_what_does(verb):
    problem = problem_of(2_000_000, horizon=10_000_000)
    begin = time.perf_counter()
    with pytest.raises(
        MemoryError, match=r"ReverseHyperGradient\(\) needs .* What fits is"
    ) as error:
        VERBS[verb](problem)
    assert (
        time.perf_counter() - begin < 20
    )  # of a machine that runs other tests; alone it is below 2
    assert any(name in str(error.value) for name in ("Forward", "Anchored", "Binomial"))


def test_the_remedy_of_a_refusal_is_accepted():
    problem = problem_of(200_000, horizon=10_000_000)
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}
    forecast = rfho.AutoHyperGradient().check(problem, hyper, rfho.ForwardHyperGradient())
    assert forecast.memory < 1e8


@pytest.mark.parametrize("wrapped", [False, True])
def test_states_on_a_shelf_are_compared_with_the_memory_of_the_host(monkeypatch, tmp_path, wrapped):
    """Of 20 states with 10 MB each; on a CPU beside what an estimate takes of the same memory."""
    problem, free = problem_of(1_250_000, horizon=2_000), 150_000_000
    for module in ("free_memory", "free_host_memory"):
        monkeypatch.setattr(f"rfho.hyper_gradients.room.{module}", lambda: free)

    def tried(**how):
        method = rfho.LongReverseHyperGradient(100, **how)
        method = rfho.WarmRestartHyperGradient(method) if wrapped else method
        rfho.Tuner(method).init(problem, HYPER)

    policy = rfho.Binomial(2)
    with pytest.raises(MemoryError, match=r"keeps 400 MB in the memory of the host, but .* slots="):
        tried(checkpoint=policy)
    tried(checkpoint=policy, shelf=rfho.DiskShelf(tmp_path))
    free = 300_000_000
    tried(checkpoint=policy, slots=4)


def test_the_limit_on_the_address_space_is_known():
    program = textwrap.dedent("""
        import resource, jax, jax.numpy as jnp, optax, rfho
        jax.devices()
        from pathlib import Path
        mapped = 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 10**9, mapped + 10**9))
        dynamics = rfho.Descent(
            lambda w, h, b: jnp.sum((w - 1) ** 2), lambda h: optax.sgd(h), lambda h: jnp.zeros(10**5)
        )
        problem = rfho.Problem(dynamics, lambda w, h, b: jnp.sum(w**2), horizon=10**4)
        try:
            rfho.tune(problem, 0.1, steps=1)
        except MemoryError as error:
            print("refused", str(error).splitlines()[0])
    """)
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert said.stdout.startswith("refused ReverseHyperGradient() needs 4 GB"), said.stderr[-2000:]


METHODS = (
    *(kind.method for kind in ZOO.values()),
    rfho.ReverseHyperGradient(rfho.Anchored(every=2)),
    rfho.LongReverseHyperGradient(2, slots=2),
)


def test_the_zoo_has_every_method():
    public = {getattr(rfho.hyper_gradients, name) for name in rfho.hyper_gradients.__all__}
    methods = {each for each in public if each.__name__.endswith("HyperGradient")}
    concrete = {method for method in methods if not inspect.isabstract(method)}
    assert {type(kind.method) for kind in ZOO.values()} == concrete


@pytest.mark.parametrize("method", METHODS, ids=as_code)
def test_every_method_states_its_cost_or_why_it_cannot(method):
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}
    forecast = method.cost(Parts(problem_of(50, horizon=20), hyper, Rates()))
    if forecast is None:
        assert method.cost_unknown != rfho.hyper_gradients.AbstractHyperGradient.cost_unknown
        assert len(method.cost_unknown) > 10
    else:
        assert forecast.time > 0.1
        assert forecast.memory > 50 * 8


def test_no_method_is_left_out_of_the_costs():
    named = {name for name in rfho.__all__ if name.endswith("HyperGradient")}
    assert named == {type(method).__name__ for method in METHODS}


def test_a_method_prints_as_one_writes_it():
    assert (
        as_code(rfho.ReverseHyperGradient(rfho.Recompute(3)))
        == "ReverseHyperGradient(Recompute(3))"
    )
    assert as_code(rfho.RealTimeHyperGradient(every=5)) == "RealTimeHyperGradient(5)"
    assert as_code(optax) == repr(optax)
