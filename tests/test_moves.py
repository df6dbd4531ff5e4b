"""An outer step that does not fit the size of a hyperparameter is named while it happens."""

import warnings

import jax.numpy as jnp
import optax
import pytest

import rfho
from rfho.checks import Kind

DYNAMICS = rfho.Descent(
    lambda w, hyper, batch: (w - 1) ** 2, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(())
)


def found(pull, hyper, domain=rfho.Reals(), steps=3, rate=1.0):
    """The kinds of warnings of a run whose hypergradient is ``pull``."""

    def objective(w, hyper, batch):
        return pull * hyper["lr"] + 0 * w

    problem = rfho.Problem(DYNAMICS, objective, horizon=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rfho.tune(problem, hyper, optim=optax.sgd(rate), domain=domain, steps=steps)
    return [message.message.finding.kind for message in said]


def test_adams_default_on_a_small_rate_is_named():
    """The rate of 0.001 that an outer Adam at 0.01 takes below zero in one step."""
    problem = rfho.Problem(DYNAMICS, lambda w, hyper, batch: (w + 1) ** 2, horizon=2)
    with pytest.warns(
        rfho.HyperGradientWarning, match=r'hyper\["lr"\] from 0.001 to -0.009'
    ) as said:
        rfho.tune(problem, {"lr": 1e-3}, steps=3)
    assert len(said) == 1


def test_many_starts_are_told_in_the_words_of_one():
    def objective(w, hyper, batch):
        return hyper["lr"] + 0 * w

    problem = rfho.Problem(DYNAMICS, objective, horizon=1)
    how = {"optim": optax.sgd(1.0), "domain": rfho.Box(0.1, 1.0), "steps": 3}
    with pytest.warns(rfho.HyperGradientWarning) as of_one:
        rfho.tune(problem, {"lr": 0.5}, **how)
    with pytest.warns(rfho.HyperGradientWarning) as of_many:
        rfho.tune_many(problem, [{"lr": 0.5}, {"lr": 0.6}], **how)
    assert "Box(0.1, upper=1.0)" in str(of_one[0].message)
    assert {str(said.message) for said in of_many} == {str(said.message) for said in of_one}


def test_the_remedy_of_that_warning_is_quiet():
    problem = rfho.Problem(DYNAMICS, lambda w, hyper, batch: (w + 1) ** 2, horizon=2)
    rfho.tune(problem, {"lr": 1e-3}, domain=rfho.Positive(), steps=3)


@pytest.mark.parametrize(
    ("pull", "start", "domain", "kinds"),
    [
        (-0.05, 0.1, rfho.Reals(), []),
        (0.05, 0.04, rfho.Reals(), [Kind.CHANGED_SIGN]),
        (-5.0, 0.1, rfho.Reals(), [Kind.MOVED_FAR]),
        (1.0, 0.5, rfho.NonNegative(), [Kind.ON_ITS_BOUND]),
        (1.0, 0.0, rfho.NonNegative(), []),
        (-1.0, 0.0, rfho.NonNegative(), []),
        (-1.0, 0.5, rfho.UnitInterval(), [Kind.ON_ITS_BOUND]),
        (0.1, 0.5, rfho.UnitInterval(), []),
        (0.05, -0.04, rfho.Reals(), []),
    ],
)
def test_each_kind_of_move_is_told_once_and_healthy_ones_are_not(pull, start, domain, kinds):
    assert found(pull, {"lr": start}, domain) == kinds


def test_entries_of_an_array_may_cross_zero():
    def objective(w, hyper, batch):
        return jnp.sum(hyper["shift"]) + hyper["lr"] * w * 0

    problem = rfho.Problem(DYNAMICS, objective, horizon=1)
    hyper = {"lr": 0.1, "shift": jnp.full(3, 0.1)}
    rfho.tune(
        problem,
        hyper,
        optim=optax.sgd(1.0),
        domain={"lr": rfho.Fixed(), "shift": rfho.Reals()},
        steps=2,
    )
