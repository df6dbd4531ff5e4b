"""Against training and derivatives written by hand in NumPy, mistake by mistake of the predecessors.

A derivative is taken by the complex step, Im f(λ + iε) / ε with ε = 1e-30: exact to rounding, and it
needs the forward pass alone. Real-time and truncated methods are written out with their tangents and
adjoints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    OnlineTruncatedHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=12)
VALID = RNG.normal(size=(6, 3)), RNG.normal(size=6)
START = RNG.normal(size=3)
# Two batches to an epoch, with two examples left over, and three epochs and a half.
STREAM = rfho.Stream((X, Y), size=5, key=1)
HORIZON = 7
BATCHES = [tuple(map(np.asarray, STREAM(t))) for t in range(12)]


def loss(w, hyper, batch):
    """Half the mean squared error, with a penalty."""
    return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2) + 0.5 * hyper["l2"] * jnp.sum(w**2)


def error(w, hyper, batch):
    return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2)


def gradient(w, l2, batch):
    """∇_w of `loss` by hand."""
    x, y = batch
    return x.T @ (x @ w - y) / len(y) + l2 * w


def hessian(l2, batch):
    """∇²_ww of `loss` by hand."""
    x, y = batch
    return x.T @ x / len(y) + l2 * np.eye(3)


def error_by_hand(w):
    return 0.5 * np.mean((VALID[0] @ w - VALID[1]) ** 2)


def error_gradient(w):
    return VALID[0].T @ (VALID[0] @ w - VALID[1]) / len(VALID[1])


def complex_step(function, hyper):
    """The gradient of a real-analytic function of a dictionary of numbers and vectors."""
    derivatives = {}
    for name, value in hyper.items():
        flat = np.atleast_1d(value)
        columns = []
        for i in range(flat.size):
            moved = flat.astype(complex)
            moved[i] += 1e-30j
            columns.append(function(hyper | {name: moved.reshape(np.shape(value))}).imag / 1e-30)
        derivatives[name] = np.reshape(columns, np.shape(value))
    return derivatives


def problem_of(optim, init=START, objective=error, horizon=HORIZON, loss=loss):
    dynamics = rfho.Descent(loss, optim, init)
    return rfho.Problem(dynamics, objective, STREAM, VALID, horizon)


def assert_close(ours, by_hand, rtol=1e-11):
    assert ours.keys() == by_hand.keys()
    for name, derivative in by_hand.items():
        np.testing.assert_allclose(ours[name], derivative, rtol=rtol, err_msg=name)


# --- Heavy ball -------------------------------------------------------------------------------------

BALL = {"lr": 0.2, "mu": 0.8, "l2": 0.1}


def heavy_ball(hyper):
    return optax.sgd(hyper["lr"], momentum=hyper["mu"])


def heavy_ball_by_hand(hyper, batches=BATCHES[:HORIZON]):
    w, v = START, np.zeros(3)
    for batch in batches:
        v = hyper["mu"] * v + gradient(w, hyper["l2"], batch)
        w = w - hyper["lr"] * v
    return error_by_hand(w)


@pytest.mark.parametrize("method", [ReverseHyperGradient(), ForwardHyperGradient()])
def test_rate_momentum_and_penalty_under_minibatches_of_several_epochs(method):
    """Minibatches that were right on the way back only, and the rate under momentum, were wrong once."""
    estimate = rfho.hyper_gradient(problem_of(heavy_ball), BALL, method)
    assert float(estimate.value) == pytest.approx(heavy_ball_by_hand(BALL), rel=1e-13)
    assert_close(estimate.hypergradient, complex_step(heavy_ball_by_hand, BALL))


def adjoint_by_hand(batches, batches_back):
    """Reverse mode of heavy ball, the way back free to see other batches than the way forward."""
    lr, mu, l2 = BALL["lr"], BALL["mu"], BALL["l2"]
    w, v, states = START, np.zeros(3), []
    for batch in batches:
        states.append((w, v))
        v = mu * v + gradient(w, l2, batch)
        w = w - lr * v
    of_w, of_v = error_gradient(w), np.zeros(3)
    hypergradient = dict.fromkeys(BALL, 0.0)
    for (w, v), batch in zip(reversed(states), reversed(batches_back), strict=True):
        after = mu * v + gradient(w, l2, batch)
        of_after = of_v - lr * of_w
        hypergradient["lr"] -= of_w @ after
        hypergradient["mu"] += of_after @ v
        hypergradient["l2"] += of_after @ w
        of_w, of_v = of_w + hessian(l2, batch) @ of_after, mu * of_after
    return hypergradient


def test_batches_in_another_order_on_the_way_back_would_be_noticed():
    right = BATCHES[:HORIZON]
    truth = complex_step(heavy_ball_by_hand, BALL)
    assert_close(adjoint_by_hand(right, right), truth)
    for wrong in (right[::-1], [right[0]] * HORIZON, right[1:] + right[:1]):
        for forward, back in ((right, wrong), (wrong, right)):
            mistaken = adjoint_by_hand(forward, back)
            assert all(abs(mistaken[name] / truth[name] - 1) > 1e-3 for name in BALL)


# --- Adam -------------------------------------------------------------------------------------------

ADAM = {"lr": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "root": 1e-2, "decay": 0.3}


def adamw(hyper):
    return optax.adamw(
        hyper["lr"],
        b1=hyper["b1"],
        b2=hyper["b2"],
        eps=hyper["eps"],
        eps_root=hyper["root"],
        weight_decay=hyper["decay"],
    )


def adamw_by_hand(hyper):
    w, m, v = START, np.zeros(3), np.zeros(3)
    for t, batch in enumerate(BATCHES[:HORIZON], start=1):
        g = gradient(w, 0.0, batch)
        m = hyper["b1"] * m + (1 - hyper["b1"]) * g
        v = hyper["b2"] * v + (1 - hyper["b2"]) * g**2
        m_hat, v_hat = m / (1 - hyper["b1"] ** t), v / (1 - hyper["b2"] ** t)
        step = m_hat / (np.sqrt(v_hat + hyper["root"]) + hyper["eps"])
        w = w - hyper["lr"] * (step + hyper["decay"] * w)
    return error_by_hand(w)


@pytest.mark.parametrize("method", [ReverseHyperGradient(), ForwardHyperGradient()])
def test_every_setting_of_adamw_and_its_integer_step_count(method):
    problem = problem_of(adamw, loss=error)
    estimate = rfho.hyper_gradient(problem, ADAM, method)
    assert float(estimate.value) == pytest.approx(adamw_by_hand(ADAM), rel=1e-13)
    assert_close(estimate.hypergradient, complex_step(adamw_by_hand, ADAM))


# --- Initial dynamics, explicit dependence, a schedule -------------------------------------------------

SCHEDULE = {"start": START, "rates": np.linspace(0.05, 0.3, HORIZON), "l2": np.float64(0.2)}


def test_learned_start_rate_of_each_step_and_an_objective_that_sees_the_hyperparameters():
    def objective(w, hyper, batch):
        return error(w, hyper, batch) + jnp.sum(hyper["rates"] ** 2) + hyper["l2"] * jnp.sum(w**2)

    def by_hand(hyper):
        w = np.sin(hyper["start"])
        for rate, batch in zip(hyper["rates"], BATCHES[:HORIZON], strict=True):
            w = w - rate * gradient(w, hyper["l2"], batch)
        return error_by_hand(w) + np.sum(hyper["rates"] ** 2) + hyper["l2"] * np.sum(w**2)

    problem = problem_of(
        lambda hyper: optax.sgd(rfho.schedules.piecewise(hyper["rates"], HORIZON)),
        init=lambda hyper: jnp.sin(hyper["start"]),
        objective=objective,
    )
    estimate = rfho.hyper_gradient(problem, SCHEDULE)
    assert float(estimate.value) == pytest.approx(by_hand(SCHEDULE), rel=1e-13)
    assert_close(estimate.hypergradient, complex_step(by_hand, SCHEDULE))


# --- Truncated and online -----------------------------------------------------------------------------


class Ball(NamedTuple):
    """Heavy ball by hand: the state, and its tangent along each hyperparameter."""

    w: np.ndarray
    v: np.ndarray
    dw: dict
    dv: dict


def at_start():
    zeros = {name: np.zeros(3) for name in BALL}
    return Ball(START, np.zeros(3), zeros, dict(zeros))


def pushed(ball, hyper, batch):
    """One step of state and tangents."""
    w, v, dw, dv = ball
    after = hyper["mu"] * v + gradient(w, hyper["l2"], batch)
    direct = {"lr": 0 * w, "mu": v, "l2": w}
    dv = {
        name: hyper["mu"] * dv[name] + hessian(hyper["l2"], batch) @ dw[name] + direct[name]
        for name in BALL
    }
    dw = {name: dw[name] - hyper["lr"] * dv[name] - (after if name == "lr" else 0) for name in BALL}
    return Ball(w - hyper["lr"] * after, after, dw, dv)


def read(ball):
    return {name: error_gradient(ball.w) @ ball.dw[name] for name in BALL}


def from_here(ball):
    """The same state with its past forgotten."""
    return at_start()._replace(w=ball.w, v=ball.v)


@pytest.mark.parametrize("window", [1, 3, HORIZON])
def test_truncated_forgets_all_but_the_last_steps(window):
    ball = at_start()
    for t, batch in enumerate(BATCHES[:HORIZON]):
        ball = from_here(ball) if t == HORIZON - window else ball
        ball = pushed(ball, BALL, batch)
    estimate = rfho.hyper_gradient(problem_of(heavy_ball), BALL, TruncatedHyperGradient(window))
    assert_close(estimate.hypergradient, read(ball))


OUTER_RATE = {"lr": 0.02, "mu": 1.5, "l2": 0.3}
DOMAIN = {"lr": rfho.NonNegative(), "mu": rfho.UnitInterval(), "l2": rfho.NonNegative()}


def outer_optim():
    """A rate for each hyperparameter, with momentum: slots that must survive from update to update."""
    return optax.chain(
        optax.trace(decay=0.5),
        optax.stateless(lambda g, _: jax.tree.map(lambda rate, g: -rate * g, OUTER_RATE, g)),
    )


def online_by_hand(every, horizon, forget):
    """λ, value and hypergradient of every update of one training run.

    ``forget`` says after which steps of a block the tangents are dropped.
    """
    ball, hyper = at_start(), dict(BALL)
    momentum, reports = dict.fromkeys(BALL, 0.0), []
    for t, batch in enumerate(BATCHES[:horizon]):
        ball = from_here(ball) if t % every in forget else ball
        ball = pushed(ball, hyper, batch)
        if (t + 1) % every == 0:
            g = read(ball)
            momentum = {name: g[name] + 0.5 * momentum[name] for name in BALL}
            moved = {name: hyper[name] - OUTER_RATE[name] * momentum[name] for name in BALL}
            hyper = {name: max(value, 0.0) for name, value in moved.items()}
            hyper["mu"] = min(hyper["mu"], 1.0)
            reports.append((hyper, error_by_hand(ball.w), g))
    return reports


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
@pytest.mark.parametrize(
    ("method", "forget"),
    [
        (RealTimeHyperGradient(every=3), ()),
        (OnlineTruncatedHyperGradient(window=2, every=3), (1,)),
        (OnlineTruncatedHyperGradient(window=3, every=3), (0,)),
    ],
    ids=["real time", "window 2 of 3", "window 3 of 3"],
)
def test_online_methods_never_reset_the_run_and_project_after_each_update(method, forget):
    """State, step count and slots go on; real time keeps its tangents too, whatever λ made them."""
    horizon = 11  # the last two steps come after the last update
    by_hand = online_by_hand(3, horizon, forget)
    solution = rfho.tune(
        problem_of(heavy_ball, horizon=horizon),
        BALL,
        method=method,
        optim=outer_optim(),
        domain=DOMAIN,
    )
    assert len(solution.history) == len(by_hand) == 3
    assert solution.result is rfho.Result.HORIZON_REACHED
    assert by_hand[0][0]["mu"] == 1
    for report, (hyper, value, g) in zip(solution.history, by_hand, strict=True):
        assert_close(report.hyper, hyper)
        assert report.value == pytest.approx(value, rel=1e-12)
        assert_close(report.hypergradient, g)
