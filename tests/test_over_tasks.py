"""Many inner problems at once are the mean of them one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient, TruncatedHyperGradient

RNG = np.random.default_rng(0)
TASKS = 3
TRAIN = jnp.asarray(RNG.normal(size=(TASKS, 8, 2))), jnp.asarray(RNG.normal(size=(TASKS, 8)))
VALID = jnp.asarray(RNG.normal(size=(TASKS, 5, 2))), jnp.asarray(RNG.normal(size=(TASKS, 5)))
HYPER = {"start": jnp.asarray(RNG.normal(size=2)), "lr": jnp.asarray(0.1), "l2": jnp.asarray(0.2)}


def error(w, hyper, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def loss(w, hyper, batch):
    return error(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)


DYNAMICS = rfho.Descent(
    loss,
    lambda hyper: optax.sgd(hyper["lr"], momentum=0.5),
    lambda hyper: hyper["start"],
)


def one(train=None, valid=None, objective=error):
    return rfho.Problem(DYNAMICS, objective, train, valid, horizon=5)


def task(data, i):
    return jax.tree.map(lambda leaf: leaf[i], data)


@functools.cache
def streams():
    keys = jax.random.split(jax.random.key(3), TASKS)
    return jax.vmap(lambda data, key: rfho.Stream(data, 3, key))(TRAIN, keys)


def mean_of_single_problems(train, valid, **kwargs):
    singles = [
        rfho.hyper_gradient(one(task(train, i), task(valid, i), **kwargs), HYPER)
        for i in range(TASKS)
    ]
    pairs = [(single.value, single.hypergradient) for single in singles]
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *pairs)


def assert_estimate(estimate, expected):
    value, hypergradient = expected
    found = estimate.value, estimate.hypergradient
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12), found, (value, hypergradient)
    )


@pytest.mark.parametrize(
    "method",
    [ReverseHyperGradient(), ReverseHyperGradient(rfho.Binomial(2)), ForwardHyperGradient(chunk=3)],
    ids=["reverse", "binomial", "forward"],
)
def test_full_batches(method):
    estimate = rfho.hyper_gradient(rfho.over_tasks(one(), (TRAIN, VALID)), HYPER, method)
    assert_estimate(estimate, mean_of_single_problems(TRAIN, VALID))
    assert estimate.aux.params.shape == (TASKS, 2)


def test_a_stream_for_each_task():
    estimate = rfho.hyper_gradient(rfho.over_tasks(one(), (streams(), VALID)), HYPER)
    assert_estimate(estimate, mean_of_single_problems(streams(), VALID))


def test_truncated_sweeps_are_averaged_too():
    truncated = functools.partial(
        rfho.hyper_gradient,
        hyper=HYPER,
        method=TruncatedHyperGradient(2),
        domain={name: rfho.Reals() for name in HYPER} | {"start": rfho.Fixed()},
    )
    estimate = truncated(rfho.over_tasks(one(), (TRAIN, VALID)))
    singles = [truncated(one(task(TRAIN, i), task(VALID, i))) for i in range(TASKS)]
    expected = np.mean([single.hypergradient["lr"] for single in singles])
    assert estimate.hypergradient["lr"] == pytest.approx(expected, rel=1e-12)


def test_several_objectives_are_each_averaged():
    objective = {"start": error, "lr": loss, "l2": error}
    estimate = rfho.hyper_gradient(rfho.over_tasks(one(objective=objective), (TRAIN, VALID)), HYPER)
    assert_estimate(estimate, mean_of_single_problems(TRAIN, VALID, objective=objective))


def test_fresh_episodes_at_each_outer_step():
    """Redrawn streams, and validation sets that change with the outer step."""

    def episodes(k):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(5), k), TASKS)
        train = jax.vmap(lambda data, key: rfho.Stream(data, 3, key))(TRAIN, keys)
        return train, (VALID[0] * (1.0 + k), VALID[1])

    problem = rfho.over_tasks(one(), episodes)
    reports = list(rfho.iterate(problem, HYPER, optim=optax.sgd(0.0), steps=3))
    for k, report in enumerate(reports):
        value, hypergradient = mean_of_single_problems(*episodes(k))
        assert report.value == pytest.approx(float(value), rel=1e-12)
        np.testing.assert_allclose(
            report.hypergradient["start"], hypergradient["start"], rtol=1e-11
        )
    assert len({report.value for report in reports}) == 3


def test_each_task_trains_as_if_alone():
    problem = rfho.over_tasks(one(), (streams(), VALID))
    params = rfho.hyper_gradient(problem, HYPER).aux.params
    for i in range(TASKS):
        alone = rfho.hyper_gradient(one(task(streams(), i), task(VALID, i)), HYPER).aux.params
        np.testing.assert_allclose(params[i], alone, rtol=1e-13)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((TRAIN, task(VALID, slice(2))), r"has 2 examples and tasks\[0\]\[0\] has 3"),
        ((np.float64(1), VALID), r"tasks\[0\] has no examples"),
        ((None, None), "tasks has no arrays"),
    ],
)
def test_task_axes_must_agree(tasks, message):
    with pytest.raises(ValueError, match=message):
        rfho.over_tasks(one(), tasks)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tasks", "message"), [(3, "tasks is a int"), (lambda k: TRAIN[0], "gives a")]
)
def test_what_is_no_pair_of_training_and_validation_data_is_refused(tasks, message):
    with pytest.raises(TypeError, match=rf"{message}.*the pair \(train, valid\)"):
        rfho.over_tasks(one(), tasks)
