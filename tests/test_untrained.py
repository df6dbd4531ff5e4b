"""Statistics that were left among the trained parameters are named; what is healthy is not."""

import jax
import jax.numpy as jnp
import optax
import pytest

import rfho
from rfho.checks import Kind, Severity
from rfho.checks.diagnosis.untrained import untrained_findings
from rfho.layers import embedding

X = jax.random.normal(jax.random.key(0), (12, 3))
Y = X.sum(1)
HYPER = {"lr": 0.1}
START = {"w": jnp.ones(3), "mean": jnp.zeros(3)}


def normalised(w, x, training):
    return (x - (x.mean(0) if training else w["mean"])) @ w["w"]


def problem_of(loss, objective, init, has_aux=False):
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), init, has_aux=has_aux)
    return rfho.Problem(dynamics, objective, (X, Y), (X, Y), horizon=3)


def naive():
    return problem_of(
        lambda w, hyper, batch: jnp.mean((normalised(w, batch[0], True) - batch[1]) ** 2),
        lambda w, hyper, batch: jnp.mean((normalised(w, batch[0], False) - batch[1]) ** 2),
        START,
    )


def test_statistics_among_the_trained_parameters_are_named():
    diagnosis = rfho.diagnose(naive(), HYPER)
    (finding,) = [each for each in diagnosis.findings if each.kind is Kind.UNTRAINED]
    assert finding.where.leaf == 'params["mean"]'
    assert finding.severity is Severity.WARNING
    assert "rfho.Variables(params, carried)" in finding.message
    assert not diagnosis.healthy


def carried():
    def loss(variables, hyper, batch):
        w, mean = variables
        x, y = batch
        return jnp.mean(((x - x.mean(0)) @ w - y) ** 2), 0.9 * mean + 0.1 * x.mean(0)

    def objective(variables, hyper, batch):
        w, mean = variables
        return jnp.mean(((batch[0] - mean) @ w - batch[1]) ** 2)

    return problem_of(loss, objective, rfho.Variables(jnp.ones(3), jnp.zeros(3)), has_aux=True)


def table():
    def loss(w, hyper, batch):
        return jnp.mean((embedding(w, jnp.arange(12) % 3) - batch[1]) ** 2)

    return problem_of(loss, loss, jnp.zeros(5))


def learned_start():
    def loss(w, hyper, batch):
        return jnp.mean(
            (batch[0] @ jax.lax.stop_gradient(w["frozen"]) * w["scale"] - batch[1]) ** 2
        )

    return problem_of(loss, loss, lambda hyper: {"frozen": jnp.ones(3), "scale": hyper["lr"]})


def unread():
    def loss(w, hyper, batch):
        return jnp.mean((batch[0] @ w["w"] - batch[1]) ** 2)

    return problem_of(loss, loss, START)


def other_dynamics():
    return rfho.Problem(
        rfho.Dynamics(lambda hyper: START, lambda s, hyper, batch: s | {"w": s["w"] * hyper["lr"]}),
        lambda s, hyper, batch: jnp.sum(s["w"] + s["mean"]),
        horizon=3,
    )


@pytest.mark.parametrize("made", [carried, table, learned_start, unread, other_dynamics])
def test_what_is_healthy_is_not_named(made):
    assert untrained_findings(made(), HYPER) == []
