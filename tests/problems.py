"""The zoo: families of small problems, drawn at random, on which every method has to be right.

A family fixes what shapes a program (pytrees, depth, horizon, batch size, optimiser); a draw fills in
the numbers. All members of a family share one compiled program.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho

Rng = np.random.Generator


class Member(NamedTuple):
    """A problem, and a point at which to differentiate it."""

    problem: rfho.Problem
    hyper: Any


def members(draw: Callable[[Rng], Member], count: int, seed: int = 0) -> Member:
    """``count`` members of a family, with a leading axis on every array."""
    drawn = [draw(np.random.default_rng([seed, i])) for i in range(count)]

    def stack(*leaves):
        return jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0]

    return jax.tree.map(stack, *drawn)


def ridge(rng: Rng) -> Member:
    """Least squares with a penalty, full batch, gradient descent."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: squares(w, batch) + hyper["l2"] * jnp.sum(w**2),
        lambda hyper: optax.sgd(hyper["lr"]),
        normal(rng, 3),
    )
    problem = rfho.Problem(dynamics, ignoring_hyper(squares), *regression(rng), horizon=7)
    return Member(problem, {"lr": uniform(rng, 0.01, 0.2), "l2": uniform(rng, 0, 0.3)})


def bare_scalars(rng: Rng) -> Member:
    """One parameter, one hyperparameter, one step, and no container around anything."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: jnp.sin(w) * batch, lambda hyper: optax.sgd(hyper), normal(rng)
    )
    problem = rfho.Problem(
        dynamics, lambda w, hyper, batch: w**2, train=normal(rng), valid=None, horizon=1
    )
    return Member(problem, uniform(rng, 0.1, 1))


def example_weights(rng: Rng) -> Member:
    """A weight for each training example, the problem of data cleaning."""

    def loss(w, hyper, batch):
        return jnp.mean(jax.nn.sigmoid(hyper["weights"]) * cross_entropies(w, batch))

    dynamics = rfho.Descent(
        loss,
        lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["mu"]),
        {"w": normal(rng, 4, 3), "b": jnp.zeros(3)},
    )
    train, valid = classification(rng)
    problem = rfho.Problem(dynamics, mean_cross_entropy, train, valid, horizon=6)
    hyper = {"weights": normal(rng, 12), "lr": uniform(rng, 0.1, 1), "mu": uniform(rng, 0, 0.9)}
    return Member(problem, hyper)


def nesterov_network(rng: Rng) -> Member:
    """A network of depth two on minibatches, more than two epochs."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: network(w, batch) + hyper[1] * squared_norm(w),
        lambda hyper: optax.sgd(hyper[0], momentum=hyper[2], nesterov=True),
        layers(rng, 3, 4, 1),
    )
    train, valid = regression(rng)
    problem = rfho.Problem(dynamics, ignoring_hyper(network), stream(rng, train, 5), valid, 6)
    return Member(problem, (uniform(rng, 0.01, 0.2), uniform(rng, 0, 0.1), uniform(rng, 0, 0.9)))


def adam_network(rng: Rng) -> Member:
    """Adam with all its settings learned, a root that never sees zero, minibatches of four."""

    def optim(hyper):
        return optax.adam(
            hyper["lr"], b1=hyper["b1"], b2=hyper["b2"], eps=hyper["eps"], eps_root=hyper["root"]
        )

    dynamics = rfho.Descent(ignoring_hyper(network), optim, layers(rng, 3, 2, 1))
    train, valid = regression(rng)
    problem = rfho.Problem(dynamics, ignoring_hyper(network), indexed(rng, train, 4), valid, 8)
    return Member(problem, adam_settings(rng))


def adamw_regression(rng: Rng) -> Member:
    """Decoupled weight decay, on one parameter only."""

    def optim(hyper):
        return optax.adamw(
            hyper["lr"], eps_root=1e-4, weight_decay=hyper["decay"], mask={"a": True, "b": False}
        )

    def affine(w, batch):
        return jnp.mean(jnp.abs(batch[0] @ w["a"] + w["b"] - batch[1]) ** 3)

    dynamics = rfho.Descent(ignoring_hyper(affine), optim, {"a": normal(rng, 3), "b": normal(rng)})
    problem = rfho.Problem(dynamics, ignoring_hyper(affine), *regression(rng), horizon=5)
    return Member(problem, {"lr": uniform(rng, 0.01, 0.1), "decay": uniform(rng, 0, 0.5)})


def rmsprop_regression(rng: Rng) -> Member:
    """RMSProp with momentum, its slots started at one."""

    def optim(hyper):
        return optax.rmsprop(
            hyper["lr"], decay=hyper["decay"], eps=1e-3, initial_scale=1.0, momentum=hyper["mu"]
        )

    dynamics = rfho.Descent(ignoring_hyper(squares), optim, normal(rng, 3))
    train, valid = regression(rng)
    problem = rfho.Problem(dynamics, ignoring_hyper(squares), indexed(rng, train, 12), valid, 4)
    hyper = {
        "lr": uniform(rng, 0.01, 0.1),
        "decay": uniform(rng, 0.5, 0.99),
        "mu": uniform(rng, 0, 0.9),
    }
    return Member(problem, hyper)


def clipped_chain(rng: Rng) -> Member:
    """A chain: clipping by the global norm, decayed weights, momentum, a rate."""

    def optim(hyper):
        return optax.chain(
            optax.clip_by_global_norm(hyper["clip"]),
            optax.add_decayed_weights(hyper["decay"]),
            optax.trace(decay=hyper["mu"]),
            optax.scale(-hyper["lr"]),
        )

    def bilinear(w, batch):
        return squares(w[0] * w[1][0], batch)

    dynamics = rfho.Descent(ignoring_hyper(bilinear), optim, [normal(rng, 3), (normal(rng),)])
    train, valid = regression(rng)
    problem = rfho.Problem(dynamics, ignoring_hyper(bilinear), indexed(rng, train, 3), valid, 9)
    hyper = {
        "clip": uniform(rng, 0.1, 2),
        "decay": uniform(rng, 0, 0.1),
        "mu": uniform(rng, 0, 0.9),
        "lr": uniform(rng, 0.01, 0.2),
    }
    return Member(problem, hyper)


def rate_of_each_step(rng: Rng) -> Member:
    """A schedule with a rate for each step, which reads the optimiser's integer count."""
    horizon = 5
    dynamics = rfho.Descent(
        ignoring_hyper(squares),
        lambda hyper: optax.sgd(rfho.schedules.piecewise(hyper, horizon)),
        normal(rng, 3),
    )
    train, valid = regression(rng)
    train = indexed(rng, train, 1)
    problem = rfho.Problem(dynamics, ignoring_hyper(squares), train, valid, horizon)
    return Member(problem, uniform(rng, 0.01, 0.1, horizon))


def learned_start(rng: Rng) -> Member:
    """Initial parameters are learned, and the objective depends on λ itself."""

    def objective(w, hyper, batch):
        return squares(w, batch) + jnp.sum(hyper["start"] ** 2) * hyper["lr"]

    dynamics = rfho.Descent(
        ignoring_hyper(squares),
        lambda hyper: optax.sgd(hyper["lr"], momentum=0.5),
        lambda hyper: jnp.tanh(hyper["start"]),
    )
    problem = rfho.Problem(dynamics, objective, *regression(rng), horizon=3)
    return Member(problem, {"start": normal(rng, 3), "lr": uniform(rng, 0.01, 0.1)})


def own_objectives(rng: Rng) -> Member:
    """The rate follows the training error, the penalties the validation error."""
    train, valid = regression(rng)
    dynamics = rfho.Descent(
        lambda w, hyper, batch: squares(w, batch) + jnp.sum(hyper["l2"] * w**2),
        lambda hyper: optax.sgd(hyper["lr"], momentum=0.3),
        normal(rng, 3),
    )
    objective = {
        "lr": rfho.Objective(ignoring_hyper(squares), train),
        "l2": lambda w, hyper, batch: squares(w, batch) + jnp.sum(hyper["l2"]) * hyper["lr"],
    }
    problem = rfho.Problem(dynamics, objective, indexed(rng, train, 4), valid, horizon=7)
    return Member(problem, {"lr": uniform(rng, 0.01, 0.2), "l2": uniform(rng, 0, 0.2, 3)})


def learned_data(rng: Rng) -> Member:
    """Distillation: the training examples are themselves hyperparameters."""

    def loss(w, hyper, batch):
        return squares(w, (hyper["x"], batch))

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(jnp.exp(hyper["log"])), jnp.zeros(3))
    train, valid = regression(rng)
    problem = rfho.Problem(dynamics, ignoring_hyper(squares), train[1], valid, horizon=4)
    return Member(problem, {"x": train[0], "log": uniform(rng, -4, -2)})


def recurrence(rng: Rng) -> Member:
    """No optimisation at all: a driven recurrence with an integer clock, learned start and read-out."""

    def init(hyper):
        return {"h": hyper["start"], "clock": jnp.zeros((), jnp.int32)}

    def step(state, hyper, batch):
        pulse = jnp.cos(hyper["pace"] * state["clock"])
        return {
            "h": jnp.tanh(hyper["mix"] @ state["h"] + pulse * batch),
            "clock": state["clock"] + 1,
        }

    def drive(t):
        return jnp.stack([jnp.sin(0.7 * t), jnp.cos(1.3 * t)])

    dynamics = rfho.Dynamics(init, step, lambda state: state["h"])
    problem = rfho.Problem(
        dynamics, lambda w, hyper, batch: jnp.sum((w - batch) ** 2), drive, normal(rng, 2), 11
    )
    hyper = {"start": normal(rng, 2), "mix": 0.5 * normal(rng, 2, 2), "pace": uniform(rng, 0.1, 2)}
    return Member(problem, hyper)


class Players(NamedTuple):
    """The state of two players who descend on different losses."""

    first: jax.Array
    second: jax.Array


def two_players(rng: Rng) -> Member:
    """Gradient descent of two players, one after the other: a step that is no gradient of anything."""

    def step(state, hyper, batch):
        def cost(x, y):
            return jnp.sum(batch * x**2) + jnp.sum(jnp.sin(x * y))

        first = state.first - hyper["lr"][0] * jax.grad(cost)(state.first, state.second)
        second = state.second + hyper["lr"][1] * jax.grad(cost, argnums=1)(first, state.second)
        return Players(first, second)

    start = normal(rng, 2)
    dynamics = rfho.Dynamics(lambda hyper: Players(hyper["start"], 0 * hyper["start"] + 0.5), step)
    problem = rfho.Problem(
        dynamics,
        lambda w, hyper, batch: w.first @ w.second,
        indexed(rng, normal(rng, 7, 2), 1),
        None,
        10,
    )
    return Member(problem, {"start": start, "lr": uniform(rng, 0.01, 0.3, 2)})


def episodes(rng: Rng) -> Member:
    """Three tasks at once from one learned start, with a stream of minibatches each."""
    dynamics = rfho.Descent(
        ignoring_hyper(squares),
        lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["mu"]),
        lambda hyper: hyper["start"],
    )
    one = rfho.Problem(dynamics, ignoring_hyper(squares), None, None, horizon=5)
    x, y = normal(rng, 3, 8, 3), normal(rng, 3, 8)
    keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), 3)
    train = jax.vmap(lambda x, y, key: rfho.Stream((x, y), 4, key))(x, y, keys)
    problem = rfho.over_tasks(one, (train, (x, y)))
    hyper = {"start": normal(rng, 3), "lr": uniform(rng, 0.01, 0.1), "mu": uniform(rng, 0, 0.9)}
    return Member(problem, hyper)


FAMILIES = (
    ridge,
    bare_scalars,
    example_weights,
    nesterov_network,
    adam_network,
    adamw_regression,
    rmsprop_regression,
    clipped_chain,
    rate_of_each_step,
    learned_start,
    own_objectives,
    learned_data,
    recurrence,
    two_players,
    episodes,
)


def squares(w, batch):
    """Mean squared error of a linear model."""
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def network(w, batch):
    """Mean squared error of a tanh network, its layers the leaves of w in order."""
    x = batch[0]
    *hidden, last = jax.tree.leaves(w)
    for layer in hidden:
        x = jnp.tanh(x @ layer)
    return jnp.mean((x @ last - batch[1][:, None]) ** 2)


def cross_entropies(w, batch):
    """One cross-entropy per example of a softmax regression."""
    return optax.softmax_cross_entropy_with_integer_labels(batch[0] @ w["w"] + w["b"], batch[1])


def mean_cross_entropy(w, hyper, batch):
    return jnp.mean(cross_entropies(w, batch))


def ignoring_hyper(function):
    """The ``(params, hyper, batch)`` form of a function of parameters and batch."""
    return lambda w, hyper, batch: function(w, batch)


def squared_norm(w):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))


def regression(rng: Rng):
    """Twelve training and eight validation examples of dimension three."""
    coefficients = rng.normal(size=3)

    def examples(count):
        x = rng.normal(size=(count, 3))
        return jnp.asarray(x), jnp.asarray(x @ coefficients + 0.3 * rng.normal(size=count))

    return examples(12), examples(8)


def classification(rng: Rng):
    """Twelve training and eight validation examples of dimension four in three classes."""
    return tuple((normal(rng, n, 4), jnp.asarray(rng.integers(3, size=n))) for n in (12, 8))


def stream(rng: Rng, data, size: int) -> rfho.Stream:
    return rfho.Stream(data, size, key=int(rng.integers(2**31)))


def indexed(rng: Rng, data, size: int) -> rfho.Indexed:
    """Five minibatches by indices drawn in advance, cheaper to compile than a stream."""
    return rfho.Indexed(data, rng.integers(len(jax.tree.leaves(data)[0]), size=(5, size)))


def layers(rng: Rng, *sizes: int):
    """Weights of a network without biases, one dictionary entry per layer."""
    pairs = itertools.pairwise(sizes)
    return {f"layer {i}": normal(rng, *pair) for i, pair in enumerate(pairs)}


def adam_settings(rng: Rng):
    return {
        "lr": uniform(rng, 0.01, 0.1),
        "b1": uniform(rng, 0.5, 0.95),
        "b2": uniform(rng, 0.8, 0.99),
        "eps": uniform(rng, 1e-4, 1e-2),
        "root": uniform(rng, 1e-4, 1e-2),
    }


def normal(rng: Rng, *shape: int):
    return jnp.asarray(rng.normal(size=shape))


def uniform(rng: Rng, low: float, high: float, *shape: int):
    return jnp.asarray(rng.uniform(low, high, size=shape))
