"""The check that users run on their own problems: it passes what is right, names what is wrong, and says
when it cannot tell."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfho
from rfho import Result
from rfho.checks import Difference, Verdict, derivative, judged, ladder
from rfho.checks.finite_differences import settled
from rfho.checks.line import LONGEST, line_through, lines_through_leaves
from rfho.domains.space import Space
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)

# --- Finite differences with an error bar ---------------------------------------------------------------


@given(
    st.floats(-3, 3),
    st.floats(0.1, 30),
    st.sampled_from([(math.sin, math.cos), (math.exp, math.exp), (math.tanh, None)]),
)
def test_the_error_bar_holds(at, speed, functions):
    function, slope = functions
    slope = slope or (lambda x: 1 - math.tanh(x) ** 2)
    found = derivative(lambda h: function(at + speed * h), rounding=2.2e-16)
    truth = speed * slope(at)
    assert abs(found.value - truth) <= 10 * found.error + 1e-15 * found.size
    assert found.error <= 1e-6 * (abs(truth) + found.size)


def test_the_step_shrinks_until_the_function_is_finite():
    found = derivative(lambda h: math.sqrt(h + 1e-3) if h > -1e-3 else math.nan, rounding=2.2e-16)
    assert found.value == pytest.approx(0.5 / math.sqrt(1e-3), rel=1e-8)


def test_the_step_shrinks_past_a_kink():
    found = derivative(lambda h: max(h, -1e-3) + h**2, rounding=2.2e-16)
    assert found.value == pytest.approx(1, abs=1e-8)


def test_a_function_that_is_nowhere_finite_has_no_derivative():
    value, error, _ = derivative(lambda h: math.nan, rounding=2.2e-16)
    assert math.isnan(value)
    assert error == math.inf


def test_float32_has_a_wide_bar_and_not_an_empty_one():
    found = derivative(lambda h: float(np.sin(np.float32(1 + h))), rounding=1.2e-7)
    assert 1e-7 < found.error < 1e-3
    assert abs(found.value - math.cos(1)) <= 10 * found.error


def ragged(h):
    """A line, and jumps between points all but the same: what a step makes that divides rounding by its size."""
    return h + 1e-3 * math.copysign(1, math.sin(1e12 * h + 1))


def test_before_it_denies_it_asks_how_much_noise_there_is():
    found = Difference(1.2, 1e-3, 1.0)
    assert judged(1.0, found, 1.0, rounding=2.2e-16) is Verdict.DISAGREES
    noisy, verdict = settled(ragged, 1.0, found, 1.0, rounding=2.2e-16)
    assert verdict is not Verdict.DISAGREES
    assert abs(noisy.value - 1) < 10 * noisy.error
    smooth = derivative(math.sin, rounding=2.2e-16)
    assert settled(math.sin, 1.2, smooth, 1.0, rounding=2.2e-16) == (smooth, Verdict.DISAGREES)
    stairs = lambda h: math.floor(1e4 * h + 0.5) / 1e4  # noqa: E731
    flat = derivative(stairs, rounding=2.2e-16)
    assert settled(stairs, 1.0, flat, 1.0, rounding=2.2e-16)[1] is Verdict.DISAGREES


def test_an_array_has_a_derivative_and_a_bar_of_each_element():
    at, speed = np.array([0.3, -1.0, 2.0]), np.array([1.0, 20.0, 0.0])
    found = derivative(lambda h: np.sin(at + speed * h), rounding=2.2e-16)
    assert found.value.shape == (3,)
    assert np.all(abs(found.value - speed * np.cos(at)) <= 10 * found.error + 1e-15)
    assert np.all(found.error < 1e-6)


@pytest.mark.parametrize(
    "function", [np.exp, np.sqrt, lambda h: h**1.0], ids=["exp", "root", "line"]
)
def test_at_an_edge_one_side_is_enough(function):
    found = derivative(
        lambda h: float(function(h + 1) if h >= 0 else np.nan), 2.2e-16, one_sided=True
    )
    truth = {np.exp: math.e, np.sqrt: 0.5}.get(function, 1.0)
    assert abs(found.value - truth) <= 10 * found.error + 1e-14
    assert found.error < 1e-6


def test_the_ladder_is_what_a_derivative_asks_for():
    asked = []
    derivative(lambda h: asked.append(h) or math.nan, rounding=2.2e-16, step=0.3)
    assert sorted(asked) == sorted([*ladder(0.3), *(-h for h in ladder(0.3))])


@pytest.mark.parametrize(
    ("claimed", "found", "verdict"),
    [
        (1.0, Difference(1.0, 1e-9, 1.0), Verdict.AGREES),
        (1.0, Difference(1.01, 1e-9, 1.0), Verdict.DISAGREES),
        (1.0, Difference(1.01, 0.1, 1.0), Verdict.UNDECIDED),
        (9.0, Difference(1.01, 0.1, 1.0), Verdict.DISAGREES),
        (1.0, Difference(math.nan, math.inf, 0.0), Verdict.UNDECIDED),
        (math.nan, Difference(1.0, 1e-9, 1.0), Verdict.DISAGREES),
        (0.0, Difference(1e-15, 1e-14, 1.0), Verdict.AGREES),
    ],
)
def test_verdicts(claimed, found, verdict):
    assert judged(claimed, found, scale=abs(claimed), rounding=2.2e-16) is verdict


# --- Lines that stay inside -----------------------------------------------------------------------------


def test_a_line_changes_no_leaf_by_more_than_its_own_size():
    point = {"eps": jnp.asarray(1e-8), "w": 1e3 * jnp.ones((4, 5)), "zero": jnp.zeros(3)}
    sizes = {name: float(jnp.linalg.norm(leaf)) or 1.0 for name, leaf in point.items()}
    for seed in range(5):
        line = line_through(Space.of(rfho.Reals(), point), point, jax.random.key(seed))
        shares = [jnp.linalg.norm(line.velocity[name]) / size for name, size in sizes.items()]
        assert math.hypot(*shares) == pytest.approx(1)
        assert not line.one_sided


X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.sin(X[:, 0])

INSIDE = {
    "positive": (rfho.Positive(), jnp.asarray([1e-6, 2.0])),
    "log box": (rfho.LogBox(1e-6, 3.0), jnp.asarray([1e-5, 2.0])),
    "box": (rfho.Box(0.0, 1.0), jnp.asarray([0.3, 0.6])),
    "nearly at the edge": (rfho.UnitInterval(), jnp.asarray(0.95)),
    "simplex": (rfho.Simplex(), jnp.asarray([0.2, 0.3, 0.5])),
    "capped": (rfho.CappedL1(5.0), jnp.asarray([0.2, 0.3, 0.5])),
    "symmetric": (rfho.domains.SymmetricNonNegative(), jnp.asarray([[0.0, 1.0], [1.0, 0.0]])),
}
EDGES = {
    "zero": (rfho.NonNegative(), jnp.asarray(0.0)),
    "one of several": (rfho.NonNegative(), jnp.asarray([0.0, 0.4])),
    "one": (rfho.UnitInterval(), jnp.asarray(1.0)),
    "corner": (rfho.Box(0.0, 1.0), jnp.asarray([0.0, 1.0])),
    "corner of a simplex": (rfho.Simplex(), jnp.asarray([1.0, 0.0, 0.0])),
    "full": (rfho.CappedL1(1.0), jnp.asarray([0.5, 0.5, 0.0])),
    "floor": (rfho.Positive(floor=0.1), jnp.asarray(0.1)),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [*INSIDE, *EDGES])
def test_a_line_stays_inside_its_domain_and_leads_somewhere(name, seed):
    domain, leaf = (INSIDE | EDGES)[name]
    point = {"other": jnp.asarray(3.0), "leaf": leaf}
    space = Space.of({"other": rfho.Reals(), "leaf": domain}, point)
    for line in (
        line_through(space, point, jax.random.key(seed)),
        *lines_through_leaves(space, point, jax.random.key(seed)),
    ):
        for h in np.linspace(0 if line.one_sided else -LONGEST, LONGEST, 7):
            assert domain.contains(line.at(h)["leaf"])
        moved = jax.tree.map(lambda a, b: (a - b) / 1e-6, line.at(1e-6), line.at(0.0))
        for name_of, velocity in line.velocity.items():
            np.testing.assert_allclose(moved[name_of], velocity, rtol=1e-4, atol=1e-8)
        assert max(float(jnp.linalg.norm(v)) for v in jax.tree.leaves(line.velocity)) > 1e-3
        np.testing.assert_allclose(line.at(0.0)["leaf"], leaf, rtol=1e-12)


@pytest.mark.parametrize("name", INSIDE)
def test_inside_a_line_has_two_sides(name):
    domain, leaf = INSIDE[name]
    space = Space.of(domain, leaf)
    assert not all(line_through(space, leaf, jax.random.key(i)).one_sided for i in range(4))


# --- Domains --------------------------------------------------------------------------------------------


def least_squares(horizon=8):
    """Penalties below zero make everything NaN."""

    def loss(w, hyper, batch):
        penalty = jnp.sum(jnp.sqrt(hyper["l1"] + 0.01) * w**2)
        scale = jnp.log(jnp.where(hyper["l1"] < 0, jnp.nan, 1.0)).sum()
        return jnp.mean((batch[0] @ w - batch[1]) ** 2) + penalty + scale

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(3))
    objective = lambda w, hyper, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2)  # noqa: E731
    return rfho.Problem(dynamics, objective, (X, Y), (X, Y), horizon)


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_at_the_edge_of_a_domain_differences_have_one_side(wide):
    with jax.enable_x64(wide):
        x, y = jnp.asarray(X, float), jnp.asarray(Y, float)
        problem = least_squares()
        problem = rfho.Problem(problem.dynamics, problem.objective, (x, y), (x, y), 8)
        hyper = {"lr": jnp.asarray(0.1), "l1": jnp.asarray([0.0, 0.02, 0.0])}
        domain = {"lr": rfho.Positive(), "l1": rfho.NonNegative()}
        check = rfho.check_hyper_gradient(problem, hyper, domain=domain, directions=2, throw=wide)
        assert all(along.verdict is not Verdict.DISAGREES for along in check.along)
        assert rfho.diagnose(problem, hyper, domain=domain).healthy


def test_at_an_edge_a_wrong_derivative_is_found_too():
    objective = lambda w, hyper, batch: jnp.sum(w**2) * (1 + jax.lax.stop_gradient(hyper["l1"]))  # noqa: E731
    dynamics = rfho.Dynamics(
        lambda hyper: jnp.ones(2), lambda s, hyper, batch: s - 0.1 * (1 + hyper["l1"]) * s
    )
    problem = rfho.Problem(dynamics, objective, horizon=4)
    hyper, domain = {"l1": jnp.asarray(0.0)}, rfho.NonNegative()
    check = rfho.check_hyper_gradient(problem, hyper, domain=domain, directions=1, throw=False)
    assert check.along[0].verdict is Verdict.DISAGREES
    (finding,) = rfho.diagnose(problem, hyper, domain=domain).findings
    assert "by way of a stop_gradient" in finding.message


def test_what_is_fixed_is_not_learned_and_reaches_the_functions_as_it_is():
    def loss(w, hyper, batch):
        for _ in range(hyper["layers"]):
            w = jnp.tanh(w)
        return jnp.mean((w - hyper["target"]) ** 2)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(3))
    problem = rfho.Problem(dynamics, loss, horizon=3)
    hyper = {"lr": 0.1, "layers": 2, "target": jnp.asarray(0.5)}
    domain = {"lr": rfho.Reals(), "layers": rfho.Fixed(), "target": rfho.Fixed()}
    check = rfho.check_hyper_gradient(problem, hyper, domain=domain, directions=1)
    assert jax.tree.leaves(check.along[0].direction) == [check.along[0].direction["lr"]]
    assert {found.path for found in check.second_order} == {"params", 'hyper["lr"]'}
    assert rfho.diagnose(problem, hyper, domain=domain).findings == ()


@pytest.mark.parametrize("verb", [rfho.check_hyper_gradient, rfho.diagnose])
@pytest.mark.parametrize("around", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_inside_of_a_traced_program_the_sentence_says_so(verb, around):
    problem = problem_of(layered(jnp.sin))

    def inside(lr):
        verb(problem, {**HYPER, "lr": lr})
        return lr

    with pytest.raises(TypeError, match="looks at numbers, which are not known inside"):
        around(inside)(jnp.asarray([0.1]) if around is jax.vmap else 0.1)


def test_numbers_that_a_loss_closes_over_are_refused_too():
    def inside(target):
        loss = lambda w, hyper, batch: jnp.sum((w - target) ** 2)  # noqa: E731
        dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(3))
        rfho.check_hyper_gradient(rfho.Problem(dynamics, loss, horizon=2), {"lr": 0.1})
        return target

    with pytest.raises(TypeError, match="looks at numbers"):
        jax.vmap(inside)(jnp.ones(2))


# --- What is right passes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "method"),
    [
        (problems.adamw_regression, None),
        (problems.ridge, ForwardHyperGradient()),
        (problems.own_objectives, None),
        (problems.recurrence, RealTimeHyperGradient(11)),
        (problems.episodes, None),
    ],
)
def test_right_hypergradients_pass(family, method):
    problem, hyper = family(np.random.default_rng(1))
    method = ReverseHyperGradient() if method is None else method
    check = rfho.check_hyper_gradient(problem, hyper, method, directions=2)
    assert check.agrees
    first, *rows = str(check).splitlines()
    assert first == "agrees with finite differences along 2 of 2 directions"
    assert len(rows) == 2 + bool(check.second_order)
    assert len(check.along) == 2
    for along in check.along:
        assert along.verdict is Verdict.AGREES
        assert along.by_method == pytest.approx(along.by_differences, rel=1e-6)
        assert along.by_other == pytest.approx(along.by_method, rel=1e-9)
        assert jax.tree.structure(along.direction) == jax.tree.structure(hyper)
    paths = {finding.path for finding in check.second_order}
    expected = {
        problems.adamw_regression: {'params["a"]', 'params["b"]', 'hyper["lr"]', 'hyper["decay"]'},
        problems.ridge: {"params", 'hyper["lr"]', 'hyper["l2"]'},
        problems.own_objectives: {"params", 'hyper["lr"]', 'hyper["l2"]'},
        problems.recurrence: set(),
        problems.episodes: {"params", 'hyper["start"]', 'hyper["lr"]', 'hyper["mu"]'},
    }
    assert paths == expected[family]


@pytest.mark.parametrize(
    "method", [ReverseHyperGradient(), ForwardHyperGradient()], ids=["reverse", "forward"]
)
def test_complex_parameters_pass(method):
    def loss(w, hyper, batch):
        return jnp.sum(jnp.abs(w - (1 + 2j)) ** 2) * hyper["c"] + jnp.sum(jnp.real(w**3))

    start = jnp.asarray([0.5 + 0.2j, 1j])
    dynamics = rfho.Descent(loss, lambda hyper: optax.adam(hyper["lr"]), start)
    problem = rfho.Problem(
        dynamics, lambda w, hyper, batch: jnp.sum(jnp.abs(w) ** 2), None, None, 5
    )
    check = rfho.check_hyper_gradient(problem, {"lr": 0.02, "c": 0.5}, method, directions=1)
    assert check.along[0].by_other == pytest.approx(check.along[0].by_method, rel=1e-9)


# --- What is wrong is named -----------------------------------------------------------------------------

PARAMS = {"before": jnp.asarray([0.5, -1.0, 2.0]), "after": jnp.asarray(0.3)}
HYPER = {"lr": 0.1, "l2": 0.02}


def layered(layer):
    """A loss with a layer of the given kind between two parameters."""

    def loss(w, hyper, batch):
        x, y = batch
        z = jnp.tanh(layer(x @ w["before"]) + w["after"])
        return jnp.mean((z - y) ** 2) + hyper["l2"] * jnp.sum(w["before"] ** 2)

    return loss


def normalised(z):
    """The right first and a wrong second derivative: the mean is taken to be constant."""
    spread = jnp.mean((z - jax.lax.stop_gradient(jnp.mean(z))) ** 2)
    return (z - jnp.mean(z)) / jnp.sqrt(spread + 0.1)


@jax.custom_vjp
def cubed(z):
    return z**3


def cubed_back(z, cotangent):
    # Right, but blind to where z came from.
    return (3 * jax.lax.stop_gradient(z) ** 2 * cotangent,)


cubed.defvjp(lambda z: (z**3, z), cubed_back)


def problem_of(loss, horizon=6):
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), PARAMS)
    return rfho.Problem(dynamics, loss, (X, Y), (X, Y), horizon)


@pytest.mark.parametrize("layer", [normalised, cubed], ids=["stop_gradient", "custom_vjp"])
def test_a_layer_with_a_wrong_second_derivative_is_named(layer):
    problem = problem_of(layered(layer))
    with pytest.raises(rfho.HyperGradientError, match=r'changes with params\["before"\]') as caught:
        rfho.check_hyper_gradient(problem, HYPER, directions=1)
    assert caught.value.result is Result.DISAGREES
    check = rfho.check_hyper_gradient(problem, HYPER, directions=1, throw=False)
    assert not check.agrees
    # Both automatic modes are wrong in the same way.
    assert check.along[0].by_method == pytest.approx(check.along[0].by_other, rel=1e-9)
    assert check.along[0].verdict is Verdict.DISAGREES
    wrong = [found.path for found in check.second_order if found.verdict is not Verdict.AGREES]
    assert wrong == ['params["before"]']


def test_a_biased_method_shows_its_bias():
    problem = problem_of(layered(jnp.sin))
    with pytest.raises(rfho.HyperGradientError, match="TruncatedHyperGradient is biased") as caught:
        rfho.check_hyper_gradient(problem, HYPER, TruncatedHyperGradient(2), directions=1)
    assert caught.value.result is Result.DISAGREES


def test_in_chaos_two_modes_agree_and_finite_differences_decide():
    """The logistic map at 3.99: derivatives of 1e30 where f stays between 0 and 1."""
    dynamics = rfho.Dynamics(
        lambda hyper: jnp.asarray(0.3), lambda state, hyper, batch: hyper * state * (1 - state)
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, None, None, horizon=200)
    (along,) = rfho.check_hyper_gradient(problem, 3.99, directions=1, throw=False).along
    assert along.by_method == pytest.approx(along.by_other, rel=1e-6)
    assert abs(along.by_method) > 1e20
    assert along.verdict is Verdict.DISAGREES
    with pytest.raises(rfho.HyperGradientError, match="f itself is at fault here: chaotic"):
        rfho.check_hyper_gradient(problem, 3.99, directions=1)


def test_what_cannot_be_decided_does_not_pass():
    """An objective with ripples too fast for any step, and the derivative of what is below them."""

    def objective(w, hyper, batch):
        return w + 0.05 * jnp.sin(jax.lax.stop_gradient(1e9 * w))

    dynamics = rfho.Dynamics(lambda hyper: hyper, lambda state, hyper, batch: state * hyper)
    problem = rfho.Problem(dynamics, objective, None, None, horizon=2)
    check = rfho.check_hyper_gradient(problem, 1.1, directions=1, throw=False)
    assert check.along[0].verdict is Verdict.UNDECIDED
    assert not check.agrees
    with pytest.raises(rfho.HyperGradientError, match="the error bar is too wide") as caught:
        rfho.check_hyper_gradient(problem, 1.1, directions=1)
    assert caught.value.result is Result.UNDECIDED


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("directions", [0, True, 1.5])
def test_the_number_of_directions_must_be_a_positive_int(directions):
    with pytest.raises(ValueError, match="it must be an int of 1 or more"):
        rfho.check_hyper_gradient(problem_of(layered(jnp.sin)), HYPER, directions=directions)
