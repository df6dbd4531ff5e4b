"""The choice of a method: what is forecast is what the compiler says, what does not fit is refused, and
what is chosen is the fastest exact method that fits."""

import itertools
import re
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from library_source import ROOT
from sampled import sampled

import rfho
from rfho import hyper_gradients as methods
from rfho._programs.trees import as_code
from rfho.choice import Parts

SGD = lambda hyper: optax.sgd(hyper["lr"])  # noqa: E731
MOMENTUM = lambda hyper: optax.sgd(hyper["lr"], momentum=0.9)  # noqa: E731
ADAM = lambda hyper: optax.adam(hyper["lr"], eps_root=1e-8)  # noqa: E731

STATES, GRADIENTS, RESIDUALS = rfho.Keep.STATES, rfho.Keep.GRADIENTS, rfho.Keep.RESIDUALS


def reverse(checkpoint):
    return methods.ReverseHyperGradient(checkpoint)


# Layer sizes, batch, horizon, optimiser, number of example weights, method.
SHAPES = [
    ((20, 5), 64, 40, SGD, 0, reverse(rfho.StoreAll(STATES))),
    ((20, 5), 64, 100, SGD, 0, reverse(rfho.StoreAll(GRADIENTS))),
    ((20, 5), 16, 60, MOMENTUM, 0, reverse(rfho.StoreAll(RESIDUALS))),
    ((60, 10), 32, 30, MOMENTUM, 32, reverse(rfho.Recompute())),
    ((60, 10), 32, 30, MOMENTUM, 32, reverse(rfho.Recompute(15))),
    ((60, 10), 32, 64, SGD, 0, reverse(rfho.Binomial(8))),
    ((100, 10), 50, 30, ADAM, 0, reverse(rfho.Replay())),
    ((100, 10), 50, 30, ADAM, 50, reverse(rfho.StoreAll(GRADIENTS))),
    ((100, 10), 200, 30, SGD, 200, reverse(rfho.StoreAll(STATES))),
    ((784, 10), 10, 12, MOMENTUM, 0, reverse(rfho.Recompute(4))),
    ((30, 40, 10), 32, 25, SGD, 0, reverse(rfho.StoreAll(GRADIENTS))),
    ((30, 40, 10), 32, 25, MOMENTUM, 0, reverse(rfho.Replay())),
    ((30, 40, 10), 32, 25, ADAM, 0, reverse(rfho.StoreAll(STATES))),
    ((30, 40, 10), 8, 49, MOMENTUM, 0, reverse(rfho.Recompute())),
    ((10, 20, 5), 16, 100, MOMENTUM, 0, reverse(rfho.Binomial(12))),
    ((10, 20, 5), 100, 30, SGD, 0, reverse(rfho.StoreAll(RESIDUALS))),
    ((20, 30, 30, 5), 20, 30, MOMENTUM, 0, reverse(rfho.StoreAll(RESIDUALS))),
    ((20, 30, 30, 5), 20, 30, SGD, 20, reverse(rfho.StoreAll(GRADIENTS))),
    ((30, 40, 10), 32, 25, SGD, 0, methods.ForwardHyperGradient()),
    ((60, 10), 32, 30, MOMENTUM, 32, methods.ForwardHyperGradient(chunk=12)),
    ((30, 40, 10), 16, 25, MOMENTUM, 16, methods.RandomForwardHyperGradient(6, key=0)),
]


@pytest.mark.parametrize(
    "shape",
    sampled(SHAPES, every=4),
    ids=[f"{'-'.join(map(str, sizes))} {as_code(method)}" for sizes, *_, method in SHAPES],
)
def test_forecast_memory_is_within_a_quarter_of_what_the_compiler_takes(shape):
    sizes, batch, horizon, optim, weights, method = shape
    problem, hyper = network(sizes, batch, horizon, optim=optim, weights=weights)
    forecast = method.cost(Parts(problem, hyper, rfho.choice.Rates()))
    taken = compiled_memory(problem, hyper, method)
    assert 0.75 * taken <= forecast.memory <= 1.25 * taken


@pytest.fixture(scope="module")
def selected():
    """A problem, and what is selected for it under less and less memory."""
    problem, hyper = network((20, 5), 32, 100, optim=MOMENTUM, weights=32)
    limits = (1e9, 1e5, 3e4)
    selections = {limit: rfho.AutoHyperGradient(limit).select(problem, hyper) for limit in limits}
    return problem, hyper, selections


def test_selection_is_fastest_exact_method_that_fits(selected):
    *_, selections = selected
    for limit, selection in selections.items():
        exact = [
            c for c in selection.candidates if c.exactness is rfho.hyper_gradients.Exactness.EXACT
        ]
        fitting = [c for c in exact if c.memory <= limit]
        chosen = next(c for c in fitting if c.method is selection.method)
        # Times that differ by less than a forecast can tell are told apart by memory.
        assert chosen.time <= 1.05 * min(c.time for c in fitting)


def test_less_memory_makes_another_choice_and_never_exceeds_the_limit(selected):
    problem, hyper, selections = selected
    chosen = {}
    for limit, selection in selections.items():
        chosen[limit] = as_code(selection.method)
        assert compiled_memory(problem, hyper, selection.method) <= 1.25 * limit
    assert chosen[1e9] in (
        "ReverseHyperGradient()",
        "ReverseHyperGradient(StoreAll(Keep.RESIDUALS))",
    )
    assert len(set(chosen.values())) == 3


def test_few_hyperparameters_and_little_memory_choose_forward_mode():
    problem, hyper = network((20, 5), 32, 1000, optim=SGD)
    selection = rfho.AutoHyperGradient(20_000).select(problem, hyper)
    assert isinstance(selection.method, methods.ForwardHyperGradient)


def test_rate_rules_out_implicit_method_and_is_named():
    problem, hyper = network((20, 5), 32, 10, optim=SGD)
    (implicit,) = implicit_candidates(problem, hyper)
    assert implicit.forecast is None
    assert 'hyper["lr"]' in implicit.reason


def test_implicit_method_is_weighed_where_it_applies_and_never_chosen():
    problem, hyper = network((20, 5), 32, 1000, optim=lambda hyper: optax.sgd(0.1))
    (implicit,) = implicit_candidates(problem, {"l2": hyper["l2"]})
    assert implicit.forecast.memory > 0
    assert "converged" in implicit.reason


def test_selection_prints_every_candidate_with_its_figures():
    problem, hyper = network((20, 5), 32, 10, optim=SGD)
    selection = rfho.AutoHyperGradient(1e9).select(problem, hyper)
    lines = str(selection).splitlines()
    assert len(lines) == 1 + len(selection.candidates)
    (chosen,) = [line for line in lines if line.startswith("→")]
    assert as_code(selection.method) in chosen
    assert "the fastest that fits" in chosen
    figures = re.compile(r"\d+\.\d ×\s+[\d.e+]+ [kMG]?B")
    assert all(figures.search(line) for line in lines[1:] if "Implicit" not in line)


REFUSED = """
import sys, time
sys.path.insert(0, "tests")
import test_auto
import rfho
problem, hyper = test_auto.network((100, 64, 10), 32, 500, optim=test_auto.SGD)
auto, seconds = rfho.AutoHyperGradient(1.5e6), []
for _ in range(3):  # the best of three: the first one also warms up
    begin = time.process_time()
    try:
        auto.check(problem, hyper, rfho.ReverseHyperGradient())
    except MemoryError:
        seconds.append(time.process_time() - begin)
assert len(seconds) == 3
print(min(seconds))
"""


@pytest.mark.soak
def test_a_refusal_takes_less_than_two_seconds():
    """As users run it: in a process without checks of shapes, with nothing beside it."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert float(done.stdout) < 2


def test_what_does_not_fit_is_refused_with_what_does():
    problem, hyper = network((100, 64, 10), 32, 500, optim=SGD)
    with pytest.raises(MemoryError) as refusal:
        rfho.AutoHyperGradient(1.5e6).check(problem, hyper, methods.ReverseHyperGradient())
    message = str(refusal.value)
    assert "ReverseHyperGradient() needs" in message
    assert "ForwardHyperGradient" in message
    assert "Binomial" in message
    assert "Recompute(250)" not in message


def test_what_fits_is_not_refused():
    problem, hyper = network((20, 5), 32, 10, optim=SGD)
    forecast = rfho.AutoHyperGradient(1e9).check(problem, hyper, methods.ReverseHyperGradient())
    assert forecast.memory < 1e9


def test_where_nothing_fits_the_most_frugal_are_named():
    problem, hyper = network((20, 5), 32, 10, optim=SGD)
    with pytest.raises(MemoryError, match="raise memory_limit") as refusal:
        rfho.AutoHyperGradient(100).select(problem, hyper)
    assert "ForwardHyperGradient(1)" in str(refusal.value)


def test_estimate_is_that_of_the_chosen_method_under_jit():
    problem, hyper = network((5, 3), 8, 20, optim=MOMENTUM, weights=8)
    auto = rfho.AutoHyperGradient(1e9)
    chosen = rfho.hyper_gradient(problem, hyper, auto.select(problem, hyper).method)
    estimate = rfho.hyper_gradient(problem, hyper, auto)
    jax.tree.map(np.testing.assert_array_equal, estimate.hypergradient, chosen.hypergradient)


def test_a_choice_can_be_made_while_a_function_that_knows_the_numbers_is_traced():
    problem, hyper = network((5, 3), 8, 5, optim=SGD)
    auto = rfho.AutoHyperGradient(1e9)

    @jax.jit
    def estimated(scale):
        return scale * rfho.hyper_gradient(problem, hyper, auto).value

    expected = rfho.hyper_gradient(problem, hyper, auto.select(problem, hyper).method).value
    np.testing.assert_allclose(estimated(2.0), 2 * expected)


def test_a_choice_is_remembered_for_problems_of_the_same_shapes():
    problem, hyper = network((20, 5), 32, 10, optim=SGD)
    auto, seconds = rfho.AutoHyperGradient(1e9), []
    for scale in (1.0, 2.0):
        begin = time.process_time()
        auto.select(problem, jax.tree.map(lambda leaf, scale=scale: scale * leaf, hyper))
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 0.2 * seconds[0]


def test_tune_runs_with_it():
    problem, hyper = network((5, 3), 8, 5, optim=SGD)
    solution = rfho.tune(problem, hyper, method=rfho.AutoHyperGradient(1e9), steps=2)
    assert solution.result is rfho.Result.STEPS_DONE


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan"), True])
def test_limit_has_to_be_a_number_of_bytes(limit):
    with pytest.raises(ValueError, match="memory_limit"):
        rfho.AutoHyperGradient(limit)


def test_limit_is_half_of_the_device_by_default():
    auto = rfho.AutoHyperGradient()
    assert 1e8 < auto.memory_limit < 1e14
    assert auto == rfho.AutoHyperGradient()


def test_method_without_forecast_is_named():
    problem, hyper = network((5, 3), 8, 5, optim=SGD)
    with pytest.raises(TypeError, match=r"ReversibleHyperGradient\(\): its integer arithmetic"):
        rfho.AutoHyperGradient().check(problem, hyper, methods.ReversibleHyperGradient())


def network(sizes, batch, horizon, *, optim, weights=0):
    """A network of tanh layers, its rate and penalty, and a weight for each example if asked for."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(batch, sizes[0]))), rng.integers(0, sizes[-1], batch)
    pairs = itertools.pairwise(sizes)
    init = [(jnp.asarray(rng.normal(size=pair)), jnp.zeros(pair[1])) for pair in pairs]

    def losses(params, x, y):
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        w, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y)

    def loss(params, hyper, batch):
        each = losses(params, *batch)
        each = each * jax.nn.sigmoid(hyper["weights"]) if weights else each
        return jnp.mean(each) + hyper["l2"] * sum(jnp.sum(w**2) for w, _ in params)

    hyper = {"lr": jnp.asarray(0.1), "l2": jnp.asarray(0.01)}
    hyper |= {"weights": jnp.zeros(weights)} if weights else {}
    objective = lambda params, hyper, batch: jnp.mean(losses(params, *batch))  # noqa: E731
    data = x, jnp.asarray(y)
    return rfho.Problem(rfho.Descent(loss, optim, init), objective, data, data, horizon), hyper


def compiled_memory(problem, hyper, method):
    """Bytes that the whole compiled program takes beside arguments and results."""
    arrays, rest = eqx.partition((problem, hyper), eqx.is_array)

    def program(arrays):
        problem, hyper = eqx.combine(arrays, rest)
        return method.estimate(problem, hyper, method.init(problem, hyper))[0]

    return jax.jit(program).lower(arrays).compile().memory_analysis().temp_size_in_bytes


def implicit_candidates(problem, hyper):
    candidates = rfho.AutoHyperGradient(1e9).select(problem, hyper).candidates
    return [c for c in candidates if isinstance(c.method, methods.ImplicitHyperGradient)]
