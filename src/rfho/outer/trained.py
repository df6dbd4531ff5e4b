"""Plain training with given hyperparameters, without any derivative."""

from typing import NamedTuple

import equinox as eqx

from rfho._programs import trees as tree
from rfho.domains import Reals
from rfho.domains.space import Space
from rfho.hyper_gradients.base import evaluated
from rfho.problem.moment import AbstractMoment
from rfho.problem.validate import validate
from rfho.typing import Hyper, Params, PyTree


class Trained(NamedTuple):
    """What plain training gives.

    Attributes:
        value: the objective, a scalar (or a prefix of scalars, where the problem has several).
        params: w_T.
    """

    value: PyTree
    params: Params


def train(problem: AbstractMoment, hyper: Hyper, *, domain: PyTree = Reals()) -> Trained:
    """Trains with given hyperparameters: f(λ) and w_T, without any derivative.

    Args:
        problem: what is trained.
        hyper: λ.
        domain: as in `tune`; `Fixed` leaves may hold anything.

    Returns:
        `Trained(value, params)`. Compiled once per problem structure; works under `jax.jit` and `jax.vmap`.

    Raises:
        TypeError, ValueError: problem and hyperparameters do not fit each other.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> float(rfho.train(problem, {"lr": 0.5}).params)
        1.0
    """
    space = Space.of(domain, hyper)
    free, rest = space.split(hyper)
    return _train(problem.at(problem.k, rest), tree.as_hyper(free))


@eqx.filter_jit
def _train(problem: AbstractMoment, hyper: Hyper) -> Trained:
    validate(problem, hyper)
    return Trained(*evaluated(problem, hyper))
