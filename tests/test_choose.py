"""`choose`: the best step by data that nobody descends, and a warning when only the validation data gain."""

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.checks import HyperGradientWarning, Kind
from rfho.errors import SnapshotError


def gap(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def problem_to(goal):
    """Training ends at w = λ, which descends to ``goal``."""
    follow = rfho.Descent(
        lambda w, hyper, batch: 0.5 * (w - hyper["goal"]) ** 2, lambda hyper: optax.sgd(1.0), 0.0
    )
    return rfho.Problem(follow, gap, valid=jnp.full(3, goal), horizon=1)


OPTIONS = {"optim": optax.sgd(0.05), "choose": jnp.ones(5)}


def test_the_best_step_is_the_lowest_on_the_other_data():
    solution = rfho.tune(problem_to(2.0), {"goal": 0.0}, steps=12, **OPTIONS)
    held_out = np.array([report.stats["held_out"] for report in solution.history])
    before = np.array([0.0, *(report.hyper["goal"] for report in solution.history)])
    np.testing.assert_allclose(held_out, (before[:-1] - 1) ** 2, rtol=1e-5)
    assert solution.best.step == np.argmin((before - 1) ** 2)
    assert 0 < solution.best.step < 12
    assert solution.best.value == pytest.approx(min((before - 1) ** 2), rel=1e-4)
    assert solution.best.params == pytest.approx(before[solution.best.step], rel=1e-5)
    assert solution.value == pytest.approx((before[-1] - 2) ** 2, rel=1e-4)
    assert f"held out, step {solution.best.step}" in repr(solution)


def test_the_last_step_may_be_the_best_on_the_other_data():
    solution = rfho.tune(problem_to(2.0), {"goal": 0.0}, steps=2, **OPTIONS)
    assert solution.best.step == 2


def test_without_other_data_the_objective_chooses():
    solution = rfho.tune(problem_to(2.0), {"goal": 0.0}, steps=12, optim=optax.sgd(0.05))
    assert solution.best.step == 12
    assert "held_out" not in solution.history[0].stats


def test_it_warns_once_when_only_the_validation_data_gain():
    options = {"optim": optax.sgd(0.01), "steps": 26}
    with pytest.warns(HyperGradientWarning, match=r"on held-out data it rose from") as caught:
        rfho.tune(problem_to(2.0), {"goal": 1.0}, choose=jnp.ones(5), **options)
    assert [warning.message.finding.kind for warning in caught] == [Kind.VALIDATION_FITTED]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rfho.tune(problem_to(2.0), {"goal": 1.0}, choose=jnp.full(5, 2.0), **options)


def test_other_data_may_be_fresh_at_every_step():
    fresh = lambda k: jnp.ones(5) * (k + 1)  # noqa: E731
    (first, second) = rfho.iterate(
        problem_to(2.0), {"goal": 0.0}, steps=2, optim=optax.sgd(0.05), choose=fresh
    )
    assert first.stats["held_out"] == pytest.approx(1.0)
    assert second.stats["held_out"] == pytest.approx((2 - first.hyper["goal"]) ** 2, rel=1e-5)


def test_each_of_many_has_its_best():
    starts = [{"goal": 0.0}, {"goal": 0.8}]
    for start, one in zip(
        starts, rfho.tune_many(problem_to(2.0), starts, steps=8, **OPTIONS), strict=True
    ):
        alone = rfho.tune(problem_to(2.0), start, steps=8, **OPTIONS)
        assert one.best.step == alone.best.step
        assert one.best.value == pytest.approx(alone.best.value, rel=1e-4)


def test_an_interrupted_run_goes_on_with_its_best(tmp_path):
    whole = rfho.tune(problem_to(2.0), {"goal": 0.0}, steps=12, **OPTIONS)
    for steps in (9, 12):
        run = rfho.Run(tmp_path / "run")
        solution = rfho.tune(problem_to(2.0), {"goal": 0.0}, steps=steps, run=run, **OPTIONS)
    assert solution.best.step == whole.best.step
    assert solution.best.value == whole.best.value
    with pytest.raises(SnapshotError, match="choose"):
        rfho.tune(
            problem_to(2.0),
            {"goal": 0.0},
            steps=13,
            run=rfho.Run(tmp_path / "run"),
            **OPTIONS | {"choose": jnp.zeros(5)},
        )


def test_objectives_with_data_of_their_own_are_refused():
    problem = problem_to(2.0)
    own = rfho.Problem(problem.dynamics, rfho.Objective(gap, jnp.ones(2)), horizon=1)
    with pytest.raises(ValueError, match="choose needs one objective"):
        rfho.tune(own, {"goal": 0.0}, steps=1, **OPTIONS)
