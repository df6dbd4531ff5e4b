"""Sick problems get their diagnosis, with step and leaf; healthy ones get none."""

import itertools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import problems
import pytest
from sampled import sampled

import rfho
from rfho import HyperGradientWarning, diagnose
from rfho.checks import Kind, Severity
from rfho.checks.diagnosis import Where
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    ImplicitHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)


# One object each, so that problems of one structure share their compiled programs.
def rate(hyper):
    return optax.sgd(hyper["lr"])


def squared(w, hyper, batch):
    return jnp.sum(w**2)


def total(w, hyper, batch):
    return jnp.sum(w)


def bowl(w, hyper, batch):
    return 0.5 * (w[0] ** 2 + 10 * w[1] ** 2)


def descent(loss, optim=rate, *, init, horizon, objective=squared):
    dynamics = rfho.Descent(loss, optim, jnp.asarray(init))
    return rfho.Problem(dynamics, objective, train=None, valid=None, horizon=horizon)


def simulation(step, init, horizon, *, train=None, objective=total):
    dynamics = rfho.Dynamics(lambda hyper: jnp.asarray(init), step)
    return rfho.Problem(dynamics, objective, train, None, horizon)


IN_A_BOWL = descent(bowl, init=[1.0, 1.0], horizon=40)


def the_only(diagnosis):
    """The one finding there is."""
    assert len(diagnosis.findings) == 1, str(diagnosis)
    return diagnosis.findings[0]


# Growth


def test_a_rate_above_two_over_the_curvature_explodes():
    assert diagnose(IN_A_BOWL, {"lr": 0.19}).healthy
    diagnosis = diagnose(IN_A_BOWL, {"lr": 0.25})
    finding = the_only(diagnosis)
    assert finding.kind is Kind.EXPLOSION
    assert finding.where == Where("state.params", 0)
    assert diagnosis.growth.per_step == pytest.approx(1.5, rel=0.02)  # 1 - 0.25 · 10


def test_the_first_step_of_an_explosion_is_named():
    """The rate is too large from step 20 on."""

    def optim(hyper):
        return optax.sgd(lambda t: jnp.where(t < 20, hyper["lr"], 10 * hyper["lr"]))

    problem = descent(bowl, optim, init=[1.0, 1.0], horizon=40)
    finding = the_only(diagnose(problem, {"lr": 0.03}))
    assert finding.kind is Kind.EXPLOSION
    assert abs(finding.where.step - 20) <= 1


def test_the_logistic_map_is_chaotic():
    problem = simulation(lambda x, hyper, batch: hyper["r"] * x * (1 - x), 0.3, 100)
    kinds = diagnose(problem, {"r": 3.99}).kinds
    assert Kind.CHAOS in kinds
    assert Kind.EXPLOSION not in kinds
    assert diagnose(problem, {"r": 2.8}).healthy


def test_the_signal_of_a_contraction_fades_out_of_float32():
    growth = diagnose(IN_A_BOWL, {"lr": 0.1}).growth
    assert growth.per_step == pytest.approx(0.9, rel=0.02)
    assert growth.float32_horizon == pytest.approx(np.log(2**23) / -np.log(0.9), rel=0.05)


# What is not finite


def test_training_that_becomes_nan_is_told_by_step_leaf_and_primitive():
    problem = descent(lambda w, hyper, batch: jnp.sum(jnp.sqrt(w)), init=[1.0, 4.0], horizon=9)
    finding = the_only(diagnose(problem, {"lr": 0.5}))
    # w: 1, 0.75, 0.46, 0.09, -0.73: the gradient is NaN at the step that begins below zero.
    assert finding.kind is Kind.NON_FINITE_TRAINING
    assert finding.where == Where("state.params", 4)
    assert "sqrt" in finding.message
    assert "test_diagnose.py" in finding.message


def test_training_that_overflows_is_told():
    problem = descent(lambda w, hyper, batch: jnp.sum(w**4), init=[1.0], horizon=20)
    finding = diagnose(problem, {"lr": 1.0}).findings[0]
    assert finding.kind is Kind.NON_FINITE_TRAINING
    assert "overflow" in finding.message


def test_an_objective_that_is_nan_is_not_blamed_on_training():
    problem = descent(
        bowl, init=[1.0, 1.0], horizon=3, objective=lambda w, hyper, batch: jnp.log(-jnp.sum(w**2))
    )
    finding = the_only(diagnose(problem, {"lr": 0.1}))
    assert finding.kind is Kind.NON_FINITE_OBJECTIVE
    assert "log" in finding.message


def test_a_root_at_zero_is_told_by_step():
    """The drive is zero at step 3 alone."""
    drive = rfho.Indexed(jnp.array([1.0, 1.0, 1.0, 0.0, 1.0]), [[0], [1], [2], [3], [4]])
    problem = simulation(
        lambda s, hyper, batch: s + hyper["a"] * jnp.sqrt(s * batch[0]), 1.0, 5, train=drive
    )
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.NON_FINITE_DERIVATIVE
    assert finding.where == Where("state", 3)
    assert "sqrt" in finding.message


@pytest.mark.parametrize(
    ("objective", "primitive"),
    [
        (lambda w, hyper, batch: jnp.linalg.norm(w), "sqrt"),
        (lambda w, hyper, batch: jnp.sum(jnp.sqrt(w)), "sqrt"),
        (lambda w, hyper, batch: jnp.sum(jnp.abs(w) ** 0.3), "pow"),
        (lambda w, hyper, batch: jnp.sum(jax.scipy.special.xlogy(w, w)), "log"),
    ],
    ids=["norm", "root", "power", "xlogy"],
)
def test_an_objective_without_derivative_at_zero_is_told_by_primitive(objective, primitive):
    problem = simulation(lambda s, hyper, batch: hyper["a"] * s, [0.0, 0.0], 2, objective=objective)
    finding = diagnose(problem, {"a": 0.5}).findings[0]
    assert finding.kind is Kind.NON_FINITE_DERIVATIVE
    assert finding.where.step == 2
    assert primitive in finding.message


def masked_root(s, hyper, batch):
    return s + hyper["a"] * (1 + jnp.where(s > 0, jnp.sqrt(s), 0.0))


def test_a_masked_root_is_told_from_a_root_at_zero():
    """Forward mode picks the other branch; reverse mode multiplies zero by infinity."""
    problem = simulation(masked_root, -1.0, 3)
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.MASKED_DERIVATIVE
    assert "masked_root" in finding.message
    assert diagnose(problem, {"a": 0.1}, ForwardHyperGradient()).healthy


def test_adam_where_a_gradient_is_exactly_zero():
    """In a step of one's own: `Descent` sees to it."""
    slope = rfho.grad(lambda w, hyper, batch: jnp.sum(w**2))

    def init(hyper):
        w = jnp.array([1.0, 0.0])
        return w, optax.adam(hyper["lr"]).init(w)

    def step(state, hyper, batch):
        w, slots = state
        updates, slots = optax.adam(hyper["lr"]).update(slope(w, hyper, batch), slots)
        return w + updates, slots

    dynamics = rfho.Dynamics(init, step, output=lambda state: state[0])
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), None, None, horizon=4)
    estimate = rfho.hyper_gradient(problem, {"lr": 0.1}, throw=False)
    assert np.isnan(estimate.hypergradient["lr"])
    finding = the_only(diagnose(problem, {"lr": 0.1}))
    assert finding.kind is Kind.NON_FINITE_DERIVATIVE
    assert "sqrt" in finding.message
    assert "safe_roots" in finding.message
    assert finding.where.leaf.startswith("state[")


# What is not finite and does no harm


def rows_that_never_occur():
    """Embeddings under Adam: the second moment of an unused row is zero, and its cotangent NaN."""
    rng = np.random.default_rng(0)
    start = {"rows": jnp.asarray(rng.normal(size=(7, 4))), "out": jnp.asarray(rng.normal(size=4))}
    words, y = rng.integers(0, 4, (9, 5)), rng.normal(size=9)

    def loss(w, hyper, batch):
        read = jnp.tanh(w["rows"][batch[0]]).mean(1) @ w["out"]
        return jnp.mean((read - batch[1]) ** 2)

    dynamics = rfho.Descent(loss, lambda hyper: optax.adam(hyper["lr"]), start)
    return rfho.Problem(dynamics, loss, (words, y), (words, y), horizon=5), {"lr": 0.05}


def a_leaf_that_nobody_reads():
    def optim(hyper):
        return optax.adam(hyper["lr"])

    init = {"used": jnp.ones(2), "idle": jnp.ones(2)}
    dynamics = rfho.Descent(lambda w, hyper, batch: jnp.sum(w["used"] ** 4), optim, init)
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w["used"]), None, None, 4)
    return problem, {"lr": 0.1}


def the_best_so_far(start, better):
    """Infinite before the first step, and never used."""

    def step(s, hyper, batch):
        w = s["w"] - hyper["lr"] * s["w"] ** 3
        return {"w": w, "best": better(s["best"], jnp.sum(w**2))}

    dynamics = rfho.Dynamics(
        lambda hyper: {"w": jnp.ones(3), "best": jnp.asarray(start)}, step, lambda s: s["w"]
    )
    return rfho.Problem(dynamics, squared, None, None, horizon=5), {"lr": 0.1}


def a_mask_of_minus_infinity():
    def step(s, hyper, batch):
        attended = jax.nn.softmax(s["w"] + s["mask"])
        return {"w": s["w"] - hyper["lr"] * attended * s["w"], "mask": s["mask"]}

    init = {"w": jnp.array([1.0, 2.0, 3.0]), "mask": jnp.array([0.0, 0.0, -jnp.inf])}
    dynamics = rfho.Dynamics(lambda hyper: init, step, lambda s: s["w"])
    return rfho.Problem(dynamics, squared, None, None, horizon=5), {"lr": 0.1}


@pytest.mark.parametrize(
    "harmless",
    [
        rows_that_never_occur,
        a_leaf_that_nobody_reads,
        lambda: the_best_so_far(jnp.inf, jnp.minimum),
        lambda: the_best_so_far(-jnp.inf, jnp.maximum),
        a_mask_of_minus_infinity,
    ],
    ids=["unused rows", "idle leaf", "lowest", "highest", "mask"],
)
def test_what_is_not_finite_but_does_not_reach_the_result_is_no_finding(harmless):
    problem, hyper = harmless()
    diagnosis = diagnose(problem, hyper)
    assert diagnosis.findings == (), str(diagnosis)
    assert np.isfinite(diagnosis.growth.per_step)


def beside_harm(problem):
    """The same training, with an infinity and a NaN in its state that nobody reads."""
    inner = problem.dynamics

    def step(s, hyper, batch):
        after = inner.step(s["z"], hyper, batch)
        least = jnp.minimum(s["a"], jnp.sum(inner.output(after)))
        return {"a": least, "b": s["b"] * 2, "z": after}

    def init(hyper):
        return {"a": jnp.asarray(jnp.inf), "b": jnp.asarray(jnp.nan), "z": inner.init(hyper)}

    dynamics = rfho.Dynamics(init, step, lambda s: inner.output(s["z"]))
    return rfho.Problem(dynamics, problem.objective, problem.train, problem.valid, problem.horizon)


def squared_root_of_a_drive():
    drive = rfho.Indexed(jnp.array([1.0, 1.0, 1.0, 0.0, 1.0]), [[0], [1], [2], [3], [4]])
    step = lambda s, hyper, batch: s + hyper["a"] * jnp.sqrt(s * batch[0])  # noqa: E731
    return simulation(step, 1.0, 5, train=drive), {"a": 0.1}


@pytest.mark.parametrize(
    "sick",
    [
        lambda: (
            descent(lambda w, hyper, batch: jnp.sum(jnp.sqrt(w)), init=[1.0, 4.0], horizon=9),
            {"lr": 0.5},
        ),
        lambda: (
            descent(
                bowl,
                init=[1.0, 1.0],
                horizon=3,
                objective=lambda w, hyper, batch: jnp.log(-jnp.sum(w**2)),
            ),
            {"lr": 0.1},
        ),
        squared_root_of_a_drive,
        lambda: (
            simulation(
                lambda s, hyper, batch: hyper["a"] * s,
                [0.0, 0.0],
                2,
                objective=lambda w, hyper, batch: jnp.linalg.norm(w),
            ),
            {"a": 0.5},
        ),
        lambda: (simulation(masked_root, -1.0, 3), {"a": 0.1}),
        lambda: (simulation(lambda s, hyper, batch: hyper["a"] * s, [jnp.inf], 3), {"a": 0.1}),
    ],
    ids=["training", "objective", "derivative", "read", "masked", "start"],
)
def test_what_does_no_harm_hides_nothing(sick):
    problem, hyper = sick()
    alone = the_only(diagnose(problem, hyper))
    beside = the_only(diagnose(beside_harm(problem), hyper))
    assert beside.kind is alone.kind
    assert beside.where.step == alone.where.step
    if alone.where.leaf is not None:
        assert beside.where.leaf == alone.where.leaf.replace("state", 'state["z"]')


@pytest.mark.parametrize(
    "optim", [rate, lambda hyper: optax.adam(hyper["lr"])], ids=["sgd", "adam"]
)
def test_complex_parameters_are_diagnosed_too(optim):
    def loss(w, hyper, batch):
        return jnp.sum(jnp.abs(w - (1 + 2j)) ** 2) * hyper["c"] + jnp.sum(jnp.real(w**3))

    problem = descent(
        loss,
        optim,
        init=[0.5 + 0.2j, 1j],
        horizon=5,
        objective=lambda w, hyper, batch: jnp.sum(jnp.abs(w) ** 2),
    )
    assert diagnose(problem, {"lr": 0.02, "c": 0.5}).findings == ()


# What has no derivative in some mode


def looped(x):
    """A loop of unknown length, which JAX cannot pull back."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 0.9 * c[1]), (0, x))[1]


def called(x):
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@jax.custom_vjp
def rectified(x):
    """A layer without forward mode."""
    return jnp.maximum(x, 0.0) ** 2


rectified.defvjp(lambda x: (rectified(x), x), lambda x, g: (2 * jnp.maximum(x, 0.0) * g,))


def test_a_loop_that_cannot_be_pulled_back_is_told_with_its_line():
    problem = simulation(lambda s, hyper, batch: hyper["a"] * looped(s), [1.0, 2.0], 3)
    finding = the_only(diagnose(problem, {"a": 0.9}))
    assert finding.kind is Kind.NOT_DIFFERENTIABLE
    assert "see test_diagnose.py:" in finding.message
    assert "take ForwardHyperGradient" in finding.message
    assert diagnose(problem, {"a": 0.9}, ForwardHyperGradient()).healthy


def test_what_no_mode_can_differentiate_is_told_once():
    problem = simulation(lambda s, hyper, batch: hyper["a"] * called(s), [1.0, 2.0], 3)
    finding = the_only(diagnose(problem, {"a": 0.9}))
    assert finding.kind is Kind.NOT_DIFFERENTIABLE
    assert "FirstOrderHyperGradient" in finding.message


def test_a_layer_without_forward_mode_is_healthy():
    problem = simulation(lambda s, hyper, batch: s - hyper["a"] * rectified(s), [1.0, 2.0], 3)
    assert diagnose(problem, {"a": 0.1}).findings == ()
    check = rfho.check_hyper_gradient(problem, {"a": 0.1}, directions=1)
    assert np.isnan(check.along[0].by_other)


def test_a_loss_without_a_gradient_is_refused_in_words_of_its_own():
    problem = descent(lambda w, hyper, batch: jnp.sum(looped(w) ** 2), init=[1.0], horizon=2)
    with pytest.raises(
        rfho.errors.UserFunctionError, match="a step failed when it was first traced"
    ):
        diagnose(problem, {"lr": 0.1})


# What is not smooth, not exact, or not there


def test_a_kink_at_this_very_point():
    problem = simulation(
        lambda s, hyper, batch: s + jnp.abs(hyper["a"] - 1) + hyper["b"] * s, 1.0, 3
    )
    finding = the_only(diagnose(problem, {"a": 1.0, "b": 0.1}))
    assert finding.kind is Kind.KINK
    assert finding.where.leaf == 'hyper["a"]'
    assert diagnose(problem, {"a": 1.1, "b": 0.1}).healthy


def test_half_precision_loses_the_signal():
    dtype = jnp.bfloat16
    start = jnp.ones(3, dtype)
    problem = descent(
        lambda w, hyper, batch: jnp.sum((w - 2) ** 2),
        init=start,
        horizon=5,
        objective=lambda w, hyper, batch: jnp.sum(w**2),
    )
    diagnosis = diagnose(problem, {"lr": jnp.asarray(0.01, dtype)})
    [finding] = [found for found in diagnosis.findings if found.kind is Kind.LOW_PRECISION]
    assert finding.where.leaf == "state.params"
    assert "four units in the last place" in finding.message


def test_momentum_undone_in_floats_does_not_come_back():
    dynamics = rfho.HeavyBall(
        lambda w, hyper, batch: 0.5 * jnp.sum(w**2),
        lambda hyper, t: hyper["lr"],
        lambda hyper, t: 0.3,
        init=jnp.ones(2),
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w), None, None, horizon=60)
    method = ReverseHyperGradient(rfho.Anchored(every=60))
    finding = the_only(diagnose(problem, {"lr": 0.1}, method))
    assert finding.kind is Kind.NOT_REVERSED
    assert "Anchored" in finding.message


@jax.custom_jvp
def centre(w):
    """The mean, with half its derivative from the second on."""
    return jnp.mean(w)


centre.defjvp(lambda w, v: (centre(*w), 0.5 * jnp.mean(*v)))


@pytest.mark.parametrize("mean", [centre, lambda w: jax.lax.stop_gradient(jnp.mean(w))])
def test_a_layer_whose_second_derivative_is_wrong(mean):
    def loss(w, hyper, batch):
        return jnp.sum((w - mean(w)) ** 2 * w) * hyper["scale"]

    problem = descent(loss, lambda hyper: optax.sgd(0.01), init=[1.0, 2.0, 4.0], horizon=2)
    diagnosis = diagnose(problem, {"scale": 1.0})
    kind = Kind.WRONG_SECOND_DERIVATIVE if mean is centre else Kind.STOPPED
    found = [finding for finding in diagnosis.findings if finding.kind is kind]
    assert [finding.where.leaf.split(".")[-1] for finding in found] == ["params"]


@jax.custom_vjp
def doubled(x):
    """The square, with twice its derivative."""
    return x**2


doubled.defvjp(lambda x: (x**2, x), lambda x, cotangent: (4 * x * cotangent,))


@jax.custom_jvp
def forgotten(x):
    """The square, with half its derivative in both modes."""
    return x**2


forgotten.defjvp(lambda x, tangents: (x[0] ** 2, x[0] * tangents[0]))
stopped = jax.lax.stop_gradient


def decaying(step=lambda s, hyper, batch: s - hyper["lr"] * s * hyper["l2"], **others):
    """Ten steps of decay from ones."""
    init = others.get("init", lambda hyper: jnp.ones(3))
    objective = others.get("objective", lambda w, hyper, batch: jnp.sum((w - 0.5) ** 2))
    return rfho.Problem(rfho.Dynamics(init, step), objective, None, None, horizon=10)


def wrong_late():
    """From step 8 on the derivative is twice what it should be."""

    def step(s, hyper, batch):
        down = hyper["lr"] * s["w"] * hyper["l2"]
        return {"w": s["w"] - jnp.where(s["t"] < 8, down, 5 * doubled(down)), "t": s["t"] + 1}

    init = {"w": jnp.ones(3), "t": jnp.zeros((), jnp.int32)}
    dynamics = rfho.Dynamics(lambda hyper: init, step, lambda s: s["w"])
    return rfho.Problem(dynamics, squared, None, None, horizon=10)


WRONG = {
    "vjp in a step": (
        lambda: decaying(lambda s, hyper, batch: s - hyper["lr"] * doubled(s * hyper["l2"])),
        {Where("state", 5), Where('hyper["l2"]', 5)},
    ),
    "jvp in a step": (
        lambda: decaying(lambda s, hyper, batch: s - hyper["lr"] * forgotten(s) * hyper["l2"]),
        {Where("state", 5)},
    ),
    "vjp in the start": (
        lambda: decaying(init=lambda hyper: doubled(hyper["l2"] * jnp.ones(3))),
        {Where('hyper["l2"]', 0)},
    ),
    "vjp in the objective": (
        lambda: decaying(objective=lambda w, hyper, batch: jnp.sum(doubled(w))),
        {Where("state", 10)},
    ),
    "one of two objectives": (
        lambda: decaying(
            objective={"lr": squared, "l2": lambda w, hyper, batch: jnp.sum(forgotten(w))}
        ),
        {Where("state", 10)},
    ),
    "late": (wrong_late, {Where(None, None)}),
}


@pytest.mark.parametrize("wide", sampled([True, False], never=[False]), ids=["float64", "float32"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_is_found_wherever_it_is(name, wide):
    """All modes apply the same rules, so that none of them notices: only trainings that differ do."""
    build, places = WRONG[name]
    with jax.enable_x64(wide):
        diagnosis = diagnose(build(), {"lr": 0.1, "l2": 0.5})
    assert diagnosis.kinds == {Kind.WRONG_DERIVATIVE}, str(diagnosis)
    assert {finding.where for finding in diagnosis.findings} == places
    assert not diagnosis.healthy


def stopped_late():
    """From step 8 on, λ has no derivative."""

    def step(s, hyper, batch):
        down = hyper["lr"] * s["w"] * hyper["l2"]
        return {"w": s["w"] - jnp.where(s["t"] < 8, down, stopped(down)), "t": s["t"] + 1}

    init = {"w": jnp.ones(3), "t": jnp.zeros((), jnp.int32)}
    dynamics = rfho.Dynamics(lambda hyper: init, step, lambda s: s["w"])
    return models.Model(rfho.Problem(dynamics, squared, None, None, horizon=10), BOTH)


def stops(step=lambda s, hyper, batch: s - hyper["lr"] * s * hyper["l2"], **others):
    return models.Model(decaying(step, **others), BOTH)


BOTH = {"lr": 0.1, "l2": 0.5}
STOPPED = {
    "running statistics": (lambda: models.running_statistics(stopped), 'state["seen"][0]', 1),
    "carried statistics": (
        lambda: models.carried_statistics(stopped),
        'state.params.carried["mean"]',
        1,
    ),
    "one of two uses in a step": (
        lambda: stops(
            lambda s, hyper, batch: s - hyper["lr"] * (hyper["l2"] * s + stopped(hyper["l2"]) * s)
        ),
        "state",
        0,
    ),
    "in the start": (
        lambda: stops(init=lambda hyper: stopped(hyper["l2"]) * jnp.ones(3)),
        "state",
        0,
    ),
    "parameters in the objective": (
        lambda: stops(objective=lambda w, hyper, batch: jnp.sum(w[:2] ** 2) + stopped(w[2] ** 2)),
        None,
        10,
    ),
    "hyper in the objective": (
        lambda: stops(objective=lambda w, hyper, batch: jnp.sum(w**2) * (1 + stopped(hyper["l2"]))),
        None,
        10,
    ),
    "late": (stopped_late, 'state["w"]', 8),
}


@pytest.mark.parametrize("wide", sampled([True, False], never=[False]))
@pytest.mark.parametrize("name", STOPPED)
def test_a_stop_gradient_that_hides_something_is_named_with_its_line(name, wide):
    build, leaf, step = STOPPED[name]
    with jax.enable_x64(wide):
        finding = the_only(diagnose(*build()))
    assert finding.kind is Kind.STOPPED
    assert finding.where == Where(leaf, step)
    assert "test_diagnose.py:" in finding.message or "models.py:" in finding.message


def test_statistics_that_nobody_reads_may_be_stopped():
    assert diagnose(*models.running_statistics(stopped, read=False)).findings == ()


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, hyper, batch: jnp.sum(w**2) * (1 + jax.lax.stop_gradient(hyper["l2"])),
        lambda w, hyper, batch: jnp.sum(w**2) * jnp.round(hyper["l2"]),
    ],
    ids=["stopped", "rounded"],
)
def test_a_hyperparameter_without_effect(loss):
    problem = descent(loss, init=[1.0], horizon=2)
    finding = the_only(diagnose(problem, {"lr": 0.1, "l2": 1.0}))
    assert finding.kind is Kind.NO_EFFECT
    assert finding.where.leaf == 'hyper["l2"]'


def test_a_hyperparameter_on_the_flat_side_of_a_clip_is_a_note():
    def optim(hyper):
        return optax.chain(optax.clip(hyper["clip"]), optax.sgd(hyper["lr"]))

    problem = descent(bowl, optim, init=[1.0, 1.0], horizon=3)
    diagnosis = diagnose(problem, {"lr": 0.01, "clip": 100.0})
    assert the_only(diagnosis).kind is Kind.ZERO_GRADIENT
    assert the_only(diagnosis).severity is Severity.NOTE
    assert diagnosis.healthy


# What is not a function


@pytest.mark.parametrize(
    "train",
    [
        lambda t, order=itertools.count(1): jnp.arange(3.0) * next(order),
        lambda t, rng=np.random.default_rng(0): jnp.asarray(rng.normal(size=3)),
        lambda t, rng=np.random.default_rng(0): jax.pure_callback(
            lambda: rng.normal(size=3), jax.ShapeDtypeStruct((3,), float)
        ),
    ],
    ids=["iterator", "numpy", "callback"],
)
def test_a_batch_that_is_not_replayed(train):
    problem = simulation(
        lambda s, hyper, batch: s + hyper["a"] * batch, jnp.ones(3), 3, train=train
    )
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.BATCH_NOT_REPLAYED
    assert finding.where == Where("train", 0)


def test_host_randomness_inside_the_step():
    rng = np.random.default_rng(0)

    def noisy(s, hyper, batch):
        return hyper["a"] * s + rng.normal()

    finding = the_only(diagnose(simulation(noisy, 1.0, 3), {"a": 0.1}))
    assert finding.kind is Kind.HOST_RANDOMNESS
    assert "(noisy)" in finding.message


def test_host_randomness_inside_the_objective():
    rng = np.random.default_rng(0)
    problem = simulation(
        lambda s, hyper, batch: hyper["a"] * s,
        jnp.ones(2),
        3,
        objective=lambda w, hyper, batch: w @ rng.normal(size=2),
    )
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.HOST_RANDOMNESS
    assert "the objective" in finding.message


@pytest.mark.parametrize(
    "noise",
    [
        lambda key, t: jax.random.normal(key),
        lambda key, t: jax.random.normal(key) + jax.random.uniform(key),
    ],
    ids=["every step", "twice"],
)
def test_a_key_that_is_used_again(noise):
    key = jax.random.key(0)
    problem = simulation(
        lambda s, hyper, batch: hyper["a"] * s + batch, 1.0, 3, train=lambda t: noise(key, t)
    )
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.KEY_REUSE


class Normalisation:
    """A layer that writes its running mean into itself."""

    def __init__(self):
        self.mean = jnp.zeros(())

    def __call__(self, x):
        self.mean = 0.9 * self.mean + 0.1 * jnp.mean(x)
        return x - self.mean


def test_a_layer_with_a_state_of_its_own():
    layer = Normalisation()
    problem = simulation(lambda s, hyper, batch: hyper["a"] * layer(s), jnp.ones(2), 3)
    finding = the_only(diagnose(problem, {"a": 0.1}))
    assert finding.kind is Kind.HIDDEN_STATE
    assert "state that dynamics carry" in finding.message


# What the method says of itself


def ridge_loss(w, hyper, batch):
    return 0.5 * jnp.sum((batch + hyper["l2"]) * w**2) - jnp.sum(w)


def half(hyper):
    return optax.sgd(0.5)


def to_one(w, hyper, batch):
    return jnp.sum((w - 1) ** 2)


def ridge(*curvatures):
    """200 steps of rate 0.5 on a quadratic."""
    dynamics = rfho.Descent(ridge_loss, half, init=jnp.zeros(2))
    return rfho.Problem(dynamics, to_one, jnp.asarray(curvatures), None, horizon=200)


def test_an_implicit_gradient_where_training_has_not_converged():
    finding = the_only(diagnose(ridge(1.0, 1e-3), {"l2": 1e-3}, ImplicitHyperGradient()))
    assert finding.kind is Kind.UNCONVERGED
    assert diagnose(ridge(1.0, 0.1), {"l2": 1.0}, ImplicitHyperGradient()).healthy


def test_a_neumann_series_that_diverges():
    method = ImplicitHyperGradient(rfho.solvers.Neumann(200, rate=1.5))
    finding = the_only(diagnose(ridge(1.0, 0.1), {"l2": 1.0}, method))
    assert finding.kind is Kind.REFUSED
    assert rfho.Result.DIVERGING.value in finding.message


def test_conjugate_gradients_on_a_singular_system():
    finding = diagnose(ridge(1.0, 0.0), {"l2": 0.0}, ImplicitHyperGradient()).findings[0]
    assert finding.kind is Kind.REFUSED
    assert rfho.Result.SINGULAR.value in finding.message


def test_conjugate_gradients_on_a_system_that_is_not_symmetric():
    problem = simulation(
        lambda s, hyper, batch: hyper["a"] * jnp.stack([s[1], -0.5 * s[0]]) + 1, jnp.ones(2), 60
    )
    method = ImplicitHyperGradient(condition=rfho.FixedPoint())
    finding = the_only(diagnose(problem, {"a": 0.5}, method))
    assert finding.kind is Kind.REFUSED
    assert rfho.Result.NOT_SYMMETRIC.value in finding.message


def test_a_window_that_is_too_short():
    method = TruncatedHyperGradient(window=2)
    finding = the_only(diagnose(ridge(1.0, 0.01), {"l2": 0.1}, method))
    assert finding.kind is Kind.TRUNCATION_BIAS
    assert finding.where == Where('hyper["l2"]', 198)


def test_a_window_of_an_online_method_that_is_too_short():
    method = rfho.OnlineTruncatedHyperGradient(window=2, every=10)
    assert the_only(diagnose(ridge(1.0, 0.01), {"l2": 0.1}, method)).kind is Kind.TRUNCATION_BIAS


class Shrunk(rfho.hyper_gradients.AbstractHyperGradient):
    """A method whose estimate is a part of the hypergradient, which it may know."""

    part: float
    known: dict[str, float]

    @property
    def trains_anew(self):
        return True

    def init(self, problem, hyper):
        return ReverseHyperGradient().init(problem, hyper)

    def estimate(self, problem, hyper, carry):
        estimate, carry = ReverseHyperGradient().estimate(problem, hyper, carry)
        shrunk = jax.tree.map(lambda g: self.part * g, estimate.hypergradient)
        aux = estimate.aux._replace(stats=jax.tree.map(jnp.asarray, self.known))
        return estimate._replace(hypergradient=shrunk, aux=aux), carry

    def conclude(self, problem, hyper, carry):
        return ReverseHyperGradient().conclude(problem, hyper, carry)

    def limit(self, problem):
        return None


@pytest.mark.parametrize(
    ("known", "said"),
    [({}, "same run, most in"), ({"relative_error": 0.4}, "same run, 40 % by its own account")],
    ids=["unknown", "declared"],
)
def test_a_biased_method_is_never_healthy(known, said):
    finding = the_only(diagnose(IN_A_BOWL, {"lr": 0.1}, Shrunk(0.6, known)))
    assert finding.kind is Kind.INEXACT
    assert finding.severity is Severity.WARNING
    assert "is 40 % off the hypergradient" in finding.message
    assert said in finding.message
    assert diagnose(IN_A_BOWL, {"lr": 0.1}, Shrunk(0.97, {})).healthy


@pytest.mark.parametrize("part", [0.6, 1 - 5e-5])
def test_a_biased_method_is_not_taken_for_chaos(part):
    with pytest.raises(rfho.HyperGradientError, match="Shrunk is biased, or wrong"):
        rfho.check_hyper_gradient(IN_A_BOWL, {"lr": 0.1}, Shrunk(part, {}), directions=1)


def test_what_is_random_and_says_how_much_is_a_note():
    problem, hyper = problems.rate_of_each_step(np.random.default_rng(0))
    finding = the_only(diagnose(problem, hyper, rfho.RandomForwardHyperGradient(1, key=0)))
    assert finding.kind is Kind.INEXACT
    assert finding.severity is Severity.NOTE


# What tuning warns of by itself


def quadratic(horizon=2):
    return descent(
        lambda w, hyper, batch: jnp.sum((w - hyper["x"]) ** 2),
        lambda hyper: optax.sgd(0.25),
        init=[0.0],
        horizon=horizon,
        objective=lambda w, hyper, batch: jnp.sum((w - 1) ** 2),
    )


def test_an_outer_step_that_is_too_large():
    with pytest.warns(HyperGradientWarning, match="outer step is too large") as caught:
        rfho.tune(quadratic(), {"x": -0.5}, optim=optax.sgd(1.9), steps=30)
    assert [warning.message.finding.kind for warning in caught] == [Kind.OUTER_STEP_TOO_LARGE]


def test_tuning_warns_of_an_adjoint_that_exploded():
    with pytest.warns(HyperGradientWarning, match="1/ε") as caught:
        rfho.tune(IN_A_BOWL, {"lr": 1.0}, optim=optax.sgd(0.0), steps=2)
    assert [warning.message.finding.where.step for warning in caught] == [1]


def test_tuning_warns_of_half_precision_once():
    problem = descent(bowl, init=jnp.ones(2, jnp.float16), horizon=2)
    hyper = {"lr": jnp.asarray(0.01, jnp.float16)}
    with pytest.warns(HyperGradientWarning, match="float16") as caught:
        rfho.tune(problem, hyper, optim=optax.sgd(1e-4), steps=3)
    assert len(caught) == 1


def test_tuning_warns_of_a_leaf_that_does_not_move():
    def optim(hyper):
        return optax.chain(optax.clip(hyper["clip"]), optax.sgd(hyper["lr"]))

    problem = descent(bowl, optim, init=[1.0, 1.0], horizon=3)
    with pytest.warns(HyperGradientWarning, match=r'hyper\["clip"\] was exactly zero'):
        rfho.tune(problem, {"lr": 0.01, "clip": 100.0}, optim=optax.sgd(1e-4), steps=4)


def test_a_failing_step_carries_its_symptoms_as_notes():
    problem = simulation(lambda s, hyper, batch: hyper["a"] * s, 1e-200, 200)
    with pytest.raises(rfho.HyperGradientError) as caught:
        rfho.tune(problem, {"a": 99.0}, steps=2)
    assert any("1/ε" in note for note in getattr(caught.value, "__notes__", []))


def test_a_tuning_run_without_symptoms_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rfho.tune(quadratic(), {"x": 0.5}, optim=optax.sgd(0.3), steps=15)


def test_noise_of_data_drawn_anew_is_no_step_that_is_too_large():
    noise = jnp.asarray(np.random.default_rng(0).normal(size=300))
    problem = rfho.Problem(
        quadratic().dynamics,
        lambda w, hyper, target: jnp.sum((w - target) ** 2),
        valid=lambda k: 2 + noise[k],
        horizon=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rfho.tune(problem, {"x": 2.0}, optim=optax.sgd(0.01), steps=300)


# What is healthy

HEALTHY = (
    problems.ridge,
    problems.adamw_regression,
    problems.rmsprop_regression,
    problems.learned_start,
    problems.learned_data,
    problems.own_objectives,
    problems.recurrence,
    problems.rate_of_each_step,
)


@pytest.mark.parametrize("family", sampled(HEALTHY, every=4), ids=lambda family: family.__name__)
def test_nothing_is_found_in_twenty_five_healthy_problems(family):
    count = 25
    drawn = problems.members(family, count, seed=1)
    for i in range(count):
        member = jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, drawn)
        diagnosis = diagnose(member.problem, member.hyper)
        assert diagnosis.findings == (), f"member {i}:\n{diagnosis}"
        assert diagnosis.smoothness.agreement > 0.9


@pytest.mark.parametrize("wide", sampled([True, False], never=[False]))
@pytest.mark.parametrize("model", sampled(models.MODELS, every=4), ids=lambda model: model.__name__)
def test_nothing_is_found_in_healthy_models(model, wide):
    with jax.enable_x64(wide):
        problem, hyper = model()
        diagnosis = diagnose(problem, hyper)
    assert diagnosis.findings == (), str(diagnosis)


def behind_a_bias(seed):
    """The gradient of the bias is rounding, which Adam divides by itself; the running mean lags behind its moves."""
    drawn = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(0.5 * drawn.normal(size=shape), jnp.float32)  # noqa: E731
    w = {"w": normal(4, 4), "b": normal(4), "scale": jnp.ones(4, jnp.float32)}
    x, y = 2 * normal(8, 4), 2 * normal(8)
    dynamics = rfho.Descent(
        biased_loss,
        lambda hyper: rfho.optim.adam(hyper["rate"]),
        rfho.Variables(w, rfho.layers.statistics(4, "float32")),
        has_aux=True,
    )
    return rfho.Problem(dynamics, biased_objective, (x, y), (x, y + 0.1), horizon=3)


def biased_loss(variables, hyper, batch):
    w, carried = variables
    x, carried = rfho.layers.normalised(batch[0] @ w["w"] + w["b"], carried)
    return jnp.mean((jnp.mean(x * w["scale"], 1) - batch[1]) ** 2), carried


def biased_objective(variables, hyper, batch):
    w, carried = variables
    x = rfho.layers.normalised_by(batch[0] @ w["w"] + w["b"], carried)
    return jnp.mean((jnp.mean(x * w["scale"], 1) - batch[1]) ** 2)


@pytest.mark.parametrize("seed", sampled(range(10), every=10))
def test_a_bias_before_a_normalisation_is_noise_and_no_wrong_derivative(seed):
    with jax.enable_x64(False):
        diagnosis = diagnose(behind_a_bias(seed), {"rate": 0.01})
    assert diagnosis.kinds <= {Kind.NOISE}, str(diagnosis)
    if diagnosis.findings:
        assert diagnosis.findings[0].where.leaf == 'params["b"]'
    much = diagnosis.smoothness.jump_nearer > 0.1
    assert diagnosis.healthy is not much


# What cannot even be built


@pytest.mark.parametrize(
    "build",
    [
        lambda: rfho.Box(1.0, 0.0),
        lambda: rfho.Positive(floor=-1.0),
        lambda: rfho.Simplex(total=-1.0),
        lambda: rfho.CappedL1(-1.0),
        lambda: rfho.domains.SymmetricNonNegative(radius=-1.0),
    ],
)
def test_an_empty_domain_is_an_error_when_it_is_built(build):
    with pytest.raises(ValueError):
        build()


def test_a_start_outside_the_domain_is_an_error_before_anything_runs():
    with pytest.raises(ValueError, match=r'hyper\["x"\]'):
        rfho.tune(quadratic(), {"x": 5.0}, domain=rfho.Box(0.0, 1.0))


def test_a_diagnosis_prints_as_sentences():
    text = str(diagnose(IN_A_BOWL, {"lr": 0.25}))
    assert text.startswith(
        "warning: from step 0 to step 39 the signal grows by a factor 1.5 per step"
    )
    assert "Lower the rate" in text


@pytest.mark.usefixtures("unchecked")
def test_diagnose_wants_a_problem():
    with pytest.raises(TypeError, match=r"where a rfho\.Problem was expected"):
        diagnose(bowl, {"lr": 0.1})
