"""Batches that are loaded before they are asked for are those that would be loaded then."""

import threading

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.adapters.ahead import Ahead

DATA = np.random.default_rng(0).normal(size=(7, 4))


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def hypergradient(train):
    dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
    problem = rfho.Problem(dynamics, square, train, jnp.ones(4), horizon=9)
    return rfho.hyper_gradient(problem, {"lr": 0.1}).hypergradient["lr"]


def test_the_hypergradient_is_that_of_the_same_batches_in_memory():
    in_memory = rfho.Indexed(DATA.reshape(-1), np.arange(28).reshape(7, 4))
    assert hypergradient(rfho.HostStream(Ahead(lambda t: DATA[t % 7]))) == hypergradient(in_memory)


@pytest.mark.parametrize(
    ("asked", "following"), [((0, 1), {2, 3}), ((6, 5), {4, 3}), ((1, 0), set())]
)
def test_what_comes_next_is_loaded_before_it_is_asked_for(asked, following):
    loaded, done = set(), threading.Semaphore(0)

    def load(t):
        loaded.add(t)
        done.release()
        return t

    ahead = Ahead(load, 2)
    assert [ahead(t) for t in asked] == list(asked)
    while not following <= loaded:
        assert done.acquire(timeout=60)
    assert min(loaded) >= 0


def test_a_batch_is_loaded_once_while_steps_go_one_way():
    calls = []
    ahead = Ahead(lambda t: calls.append(t) or t, 3)
    assert [ahead(t) for t in range(20)] == list(range(20))
    assert sorted(calls[:20]) == list(range(20))


def test_what_fails_ahead_is_raised_when_it_is_asked_for_and_not_before():
    ahead = Ahead(lambda t: [10, 11][t], 2)
    assert [ahead(0), ahead(1)] == [10, 11]
    with pytest.raises(IndexError):
        ahead(2)


def test_load_is_never_called_twice_at_once():
    inside, most = [], []

    def load(t):
        inside.append(t)
        most.append(len(inside))
        inside.pop()
        return t

    ahead = Ahead(load, 4)
    for t in [*range(30), *reversed(range(30)), 12, 3, 28]:
        assert ahead(t) == t
    assert max(most) == 1


def test_there_has_to_be_one_batch_at_least():
    with pytest.raises(ValueError, match="batches=0, but it must be 1 or more"):
        Ahead(lambda t: t, 0)
