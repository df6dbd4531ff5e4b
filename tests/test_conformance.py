"""The library's own methods, domains and dynamics keep the promises that users can test theirs by."""

import inspect
from functools import partial

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sampled import sampled

import rfho
from rfho import hyper_gradients as methods
from rfho import testing
from rfho.testing import (
    DOMAIN_PROMISES,
    DYNAMICS_PROMISES,
    METHOD_PROMISES,
    ConformanceError,
    check_domain,
    check_dynamics,
    check_method,
)

HORIZON = 4


def reversible(loss, init, settings):
    return rfho.ReversibleDescent(
        loss,
        lambda hyper, t: settings(hyper)["rate"],
        lambda hyper, t: settings(hyper)["momentum"],
        init=init,
    )


def at_a_fixed_rate(loss, init, settings):
    """What the implicit method asks for: dynamics without hyperparameters of their own."""
    return rfho.Descent(loss, lambda hyper: optax.sgd(0.4), init)


def refusing(make, *arguments):
    """One way of misuse for each bad argument."""
    return [lambda bad=bad: make(bad) for bad in arguments]


METHODS = {
    "reverse": partial(check_method, methods.ReverseHyperGradient()),
    "reverse, recomputing": partial(check_method, methods.ReverseHyperGradient(rfho.Recompute())),
    "reverse, binomial": partial(check_method, methods.ReverseHyperGradient(rfho.Binomial(2))),
    "reversible": partial(
        check_method,
        methods.ReversibleHyperGradient(),
        train=reversible,
        tolerance=1e-5,
        misuse=refusing(methods.ReversibleHyperGradient, 0.0, 2),
    ),
    "forward": partial(
        check_method,
        methods.ForwardHyperGradient(chunk=4),
        misuse=refusing(methods.ForwardHyperGradient, 0, True, 1.5),
    ),
    "random forward, all directions": partial(
        check_method,
        methods.RandomForwardHyperGradient(100, key=0),
        misuse=refusing(lambda n: methods.RandomForwardHyperGradient(n, key=0), 0, 1.5),
    ),
    "real time, read once": partial(check_method, methods.RealTimeHyperGradient(HORIZON)),
    "real time": partial(
        check_method,
        methods.RealTimeHyperGradient(1),
        tolerance=None,
        misuse=refusing(methods.RealTimeHyperGradient, 0, -1),
    ),
    "distilled": partial(
        check_method,
        methods.DistilledHyperGradient(0.5, key=0),
        tolerance=None,
        misuse=refusing(lambda x: methods.DistilledHyperGradient(x, key=0), -0.1, 1.0, "slow"),
    ),
    "truncated": partial(
        check_method,
        methods.TruncatedHyperGradient(2),
        tolerance=None,
        misuse=refusing(methods.TruncatedHyperGradient, 0, 1.5),
    ),
    "truncated, by its bias": partial(
        check_method,
        methods.TruncatedHyperGradient("auto", bias=1e-12),
        misuse=refusing(lambda bias: methods.TruncatedHyperGradient("auto", bias=bias), 0.0, 1.0),
    ),
    "online truncated": partial(
        check_method,
        methods.OnlineTruncatedHyperGradient(1, 1),
        tolerance=None,
        misuse=refusing(lambda k: methods.OnlineTruncatedHyperGradient(k, 1), 0, 2),
    ),
    "implicit": partial(
        check_method,
        methods.ImplicitHyperGradient(tolerance=1e-12),
        train=at_a_fixed_rate,
        settings={},
        horizon=150,
        learn_start=False,
        misuse=refusing(lambda x: methods.ImplicitHyperGradient(tolerance=x), -1.0, "small"),
    ),
    "alternating, settled": partial(
        check_method,
        methods.AlternatingHyperGradient(0.4, every=150, products=200),
        train=at_a_fixed_rate,
        settings={},
        horizon=150,
        learn_start=False,
        misuse=refusing(lambda x: methods.AlternatingHyperGradient(x, 1, 1), -1.0, "small"),
    ),
    "alternating, cold": partial(
        check_method,
        methods.AlternatingHyperGradient(0.4, every=2, products=3, warm_start=False),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(lambda n: methods.AlternatingHyperGradient(0.4, 1, n), 0, 1.5),
    ),
    "T1-T2": partial(
        check_method,
        methods.T1T2HyperGradient(0.4),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(lambda n: methods.T1T2HyperGradient(0.4, n), 0, 1.5),
    ),
    "single loop": partial(
        check_method,
        methods.SingleLoopHyperGradient(lambda k: 0.4 / (1 + k), average=0.5),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(lambda x: methods.SingleLoopHyperGradient(0.4, x), 0.0, 1.5, True),
    ),
    "variance reduced": partial(
        check_method,
        methods.VarianceReducedHyperGradient(0.4),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(lambda x: methods.VarianceReducedHyperGradient(0.4, x), None, 3),
    ),
    "one step": partial(
        check_method,
        methods.OneStepHyperGradient(),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(methods.OneStepHyperGradient, 0, 1.5),
    ),
    "dynamic barrier": partial(
        check_method,
        methods.DynamicBarrierHyperGradient(0.05, every=2),
        train=at_a_fixed_rate,
        settings={},
        learn_start=False,
        tolerance=None,
        misuse=refusing(lambda x: methods.DynamicBarrierHyperGradient(x, 1), -1.0, "large"),
    ),
    "first order, settled": partial(
        check_method,
        methods.FirstOrderHyperGradient(1e3, every=400),
        train=at_a_fixed_rate,
        settings={},
        horizon=400,
        learn_start=False,
        tolerance=1e-4,
        misuse=refusing(lambda x: methods.FirstOrderHyperGradient(x, 1), -1.0, 0, "large"),
    ),
    "warm restart": partial(
        check_method,
        methods.WarmRestartHyperGradient(methods.ReverseHyperGradient()),
        tolerance=None,
        misuse=refusing(methods.WarmRestartHyperGradient, None, 3),
    ),
    "persistent evolution": partial(
        check_method,
        methods.PersistentEvolutionHyperGradient(3, 0.01, every=1, key=0),
        tolerance=None,
        misuse=refusing(
            lambda n: methods.PersistentEvolutionHyperGradient(n, 0.01, every=1, key=0), 1, 0
        ),
    ),
    "single evolution": partial(
        check_method, methods.SingleEvolutionHyperGradient(3, 0.01, every=1, key=0), tolerance=None
    ),
}

# Their promises are kept by code that others of the table go through too.
LIKE_OTHERS = {
    *("reverse, recomputing", "reverse, binomial", "real time, read once", "single evolution"),
    "random forward, all directions",
}

# What these need is compiled for them alone, which takes longer than all others together.
COSTLY = (
    "each_hyperparameter_follows_its_own_objective",
    "several_objectives_have_several_values",
    "fixed_leaves_stay_and_free_ones_move",
    "works_under_vmap_over_hyper",
    "eager_equals_compiled",
    "single_precision_stays_single",
)

DOMAINS = {
    "Reals": (rfho.Reals(), [0.3, -2.0]),
    "Fixed": (rfho.Fixed(), [0.3, -2.0]),
    "NonNegative": (rfho.NonNegative(), [0.3, 2.0]),
    "Positive": (rfho.Positive(0.1), [0.3, 2.0]),
    "UnitInterval": (rfho.UnitInterval(), 0.4),
    "Box": (rfho.Box(-1.0, jnp.array([2.0, 0.1])), [0.3, -0.2]),
    "LogBox": (rfho.LogBox(0.1, jnp.array([2.0, 1.0])), [0.3, 0.2]),
    "Scaled": (rfho.domains.Scaled(rfho.Box(-1.0, 2.0)), [0.3, -0.2]),
    "Simplex": (rfho.Simplex(), [0.3, 0.3, 0.4]),
    "CappedL1": (rfho.CappedL1(1.2), [[0.3, 0.3], [0.4, 0.1]]),
    "SymmetricNonNegative": (rfho.domains.SymmetricNonNegative(1.5), np.full((3, 3), 0.2)),
}

# A loss of two leaves whose second derivatives are all different from zero.
BATCH = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
HYPER = {"lr": 0.1, "mu": 0.6, "l2": jnp.array([0.1, 0.2, 0.3]), "start": jnp.array([0.5, -1, 1])}


def loss(w, hyper, batch):
    return jnp.mean((jnp.tanh(batch @ w) - 1) ** 2) + jnp.sum(hyper["l2"] * jnp.cos(w))


def start(hyper):
    return 1.0 * hyper["start"]


def coefficients(name):
    return lambda hyper, t: hyper[name]


def carrying(variables, hyper, batch):
    w, seen = variables
    mean = jax.tree.map(lambda mean, w: 0.8 * mean + 0.2 * jnp.tanh(w), seen["mean"], w)
    drift = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(mean))
    return loss(w, hyper, batch) + 0.1 * drift, {"mean": mean, "steps": seen["steps"] + 1}


def start_carrying(hyper):
    seen = {"mean": jax.tree.map(jnp.zeros_like, start(hyper)), "steps": jnp.array(0)}
    return rfho.Variables(start(hyper), seen)


DYNAMICS = {
    "Descent, carrying": rfho.Descent(
        carrying, lambda hyper: optax.sgd(hyper["lr"], hyper["mu"]), start_carrying, has_aux=True
    ),
    "Descent, averaged": rfho.Descent(
        loss,
        lambda hyper: optax.contrib.schedule_free_sgd(hyper["lr"], b1=hyper["mu"]),
        start,
        output=lambda w, slots: optax.contrib.schedule_free_eval_params(slots, w),
    ),
    "Descent": rfho.Descent(
        loss, lambda hyper: rfho.optim.adam(hyper["lr"], b1=hyper["mu"]), start
    ),
    "Newton": rfho.dynamics.Newton(loss, start, products=9),
    "DescentWithValue": rfho.dynamics.DescentWithValue(
        loss, lambda hyper: optax.polyak_sgd(scaling=hyper["lr"], f_min=-hyper["mu"]), start
    ),
    "HeavyBall": rfho.HeavyBall(loss, coefficients("lr"), coefficients("mu"), init=start),
    "ReversibleDescent": rfho.ReversibleDescent(
        loss, coefficients("lr"), coefficients("mu"), init=start
    ),
    "Dynamics": rfho.Dynamics(
        start, lambda w, hyper, batch: w - hyper["lr"] * jax.grad(loss)(w, hyper, batch)
    ),
}


def test_there_are_enough_promises():
    promises = DOMAIN_PROMISES + DYNAMICS_PROMISES + METHOD_PROMISES
    assert len({promise.__name__ for promise in promises}) == len(promises) >= 60
    assert all(promise.__doc__ for promise in promises)


@pytest.mark.parametrize("name", sampled(METHODS, never=LIKE_OTHERS))
def test_methods_keep_their_promises(name):
    """Those that need programs of their own, in turns: each is asked of every third method."""
    turn = list(METHODS).index(name)
    asked = [
        promise
        for promise in METHOD_PROMISES
        if promise.__name__ not in COSTLY or (turn + COSTLY.index(promise.__name__)) % 3 == 0
    ]
    assert len(METHODS[name](promises=asked)) >= 16


@pytest.mark.soak
@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_all_their_promises(name):
    assert len(METHODS[name]()) >= 19


def test_the_costly_promises_are_promises():
    assert {promise.__name__ for promise in METHOD_PROMISES} >= set(COSTLY)


def test_every_method_is_tried():
    offered = {getattr(methods, name) for name in methods.__all__}
    whole = {thing for thing in offered if is_method(thing)}
    tried = {type(check.args[0]) for check in METHODS.values()}
    untried = whole - tried - ELSEWHERE
    assert not untried, f"give {untried} a row in METHODS"


def is_method(thing):
    return (
        inspect.isclass(thing)
        and issubclass(thing, methods.AbstractHyperGradient)
        and not inspect.isabstract(thing)
    )


# One chooses among the others; one is driven from Python, and no single program.
ELSEWHERE = {methods.AutoHyperGradient, methods.LongReverseHyperGradient}


@pytest.mark.parametrize("name", DOMAINS)
def test_domains_keep_their_promises(name):
    domain, example = DOMAINS[name]
    assert len(check_domain(domain, jnp.asarray(example))) >= 20


def test_a_set_behind_a_solver_keeps_its_promises_within_the_tolerance_of_the_solver():
    disc = rfho.domains.ConvexSet(lambda v: [cvxpy.norm(v) <= 1.0])
    kept = check_domain(disc, jnp.array([0.3, -0.2]), tolerance=1e-4, differentiable=False)
    assert "projection_is_the_nearest_point" in kept


@pytest.mark.parametrize("name", DYNAMICS)
def test_dynamics_keep_their_promises(name):
    assert len(check_dynamics(DYNAMICS[name], HYPER, BATCH, tolerance=1e-5)) >= 22


class Halved(rfho.domains.AbstractDomain):
    """A map that is no projection."""

    def project(self, x):
        return (x / 2).astype(jnp.float64)

    def contains(self, x, tol=1e-6):
        return jnp.any(jnp.abs(x) <= 1)

    def check(self, x, path):
        raise ValueError("no")


def test_a_broken_domain_is_told_all_that_is_wrong_with_it():
    with pytest.raises(ConformanceError, match="Halved breaks") as caught:
        check_domain(Halved(), jnp.array([0.5, 3.0]))
    assert {
        "projection_is_idempotent",
        "projection_keeps_single_precision",
        "projection_is_the_nearest_point",
        "contains_refuses_what_projection_moves",
        "check_names_the_path",
    } <= set(caught.value.broken)


class Forgetful(rfho.Descent):
    """Its way back forgets what goes through the gradient."""

    def way(self, keep):
        way = rfho.Dynamics(self.init, self.step).way(keep)

        def pull_back(adjoint, *others):
            before, by_hyper = way.pull_back(adjoint, *others)
            return before, jax.tree.map(lambda leaf: 0.9 * leaf + 0.1, by_hyper)

        return way._replace(pull_back=pull_back)


def test_broken_dynamics_are_told_which_promises_they_break():
    dynamics = Forgetful(loss, lambda hyper: optax.sgd(hyper["lr"], hyper["mu"]), start)
    with pytest.raises(ConformanceError) as caught:
        check_dynamics(dynamics, HYPER, BATCH)
    assert set(caught.value.broken) == {
        "pull_back_is_the_vjp_keeping_states",
        "pull_back_is_the_vjp_keeping_gradients",
        "pull_back_is_the_vjp_keeping_residuals",
        "pull_back_of_zero_is_zero",
        "pull_back_takes_several_adjoints",
    }


def test_dynamics_that_cannot_be_scanned_are_told_before_anything_else():
    growing = rfho.Dynamics(lambda hyper: jnp.ones(2), lambda s, hyper, b: jnp.append(s, hyper))
    with pytest.raises(ConformanceError) as caught:
        check_dynamics(growing, 0.5)
    assert set(caught.value.broken) == {"step_keeps_shapes_and_dtypes"}


class Guessing(rfho.hyper_gradients.AbstractHyperGradient):
    """The value is right and everything else is not."""

    def init(self, problem, hyper):
        return jnp.zeros(())

    def estimate(self, problem, hyper, carry):
        params = problem.dynamics.output(problem.init(hyper))
        value = problem.evaluate(params, hyper)
        wrong = jax.tree.map(lambda leaf: jnp.ones_like(leaf, jnp.float64), hyper)
        aux = methods.Aux(params, {"size": jnp.ones(2)})
        return methods.Estimate(value, wrong, aux), jnp.stack([carry.sum(), carry.sum()])

    def conclude(self, problem, hyper, carry):
        params = problem.dynamics.output(problem.init(hyper))
        return problem.evaluate(params, hyper) + 1, params

    def limit(self, problem):
        return 0


def test_a_broken_method_is_told_all_that_is_wrong_with_it():
    with pytest.raises(ConformanceError) as caught:
        check_method(Guessing(), misuse=[Guessing])
    assert {
        "carry_keeps_its_structure",
        "second_estimate_does_not_retrace",
        "stats_are_named_scalars",
        "conclusion_evaluates_its_params",
        "single_precision_stays_single",
        "limit_is_none_or_an_int",
        "penalties_in_the_loss_are_followed",
        "initial_hyperparameters_are_followed",
        "explicit_dependence_is_followed",
        "value_is_that_of_training",
        "bad_arguments_are_refused",
    } <= set(caught.value.broken)


def test_the_kits_are_public():
    assert set(testing.__all__) >= {"check_method", "check_domain", "check_dynamics"}
