"""The racer with derivatives: Adam on log λ, by implicit differentiation at the minimum."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import rfho
from rfho.experiments.races.contest import BOUNDS, Move
from rfho.experiments.races.models import Model
from rfho.experiments.races.tables import RaceTable


class DataLoss(eqx.Module):
    """The mean of ℓ over examples: what is made small, on the validation set."""

    model: Model = eqx.field(static=True)

    def __call__(self, params: Any, hyper: Any, batch: Any) -> Float[Array, ""]:
        x, y, group = batch
        scale = jnp.exp(-0.5 * jnp.log(hyper["penalties"]))[group][:, None]
        return self.model.of_outputs(x @ (scale * params["weight"]) + params["bias"], y)


class TrainingLoss(eqx.Module):
    """Of features scaled by the roots of their penalties: the same minimum, far better conditioned."""

    data: DataLoss

    def __call__(self, params: Any, hyper: Any, batch: Any) -> Float[Array, ""]:
        ridge = 0.5 * jnp.sum(params["weight"] ** 2) + 1e-4 * jnp.sum(params["bias"] ** 2)
        return self.data(params, hyper, batch) + ridge / len(batch[1])


def by_hypergradients(table: RaceTable, start: Move, rate: float) -> Iterator[Move]:
    """The outer steps, by the minimum that Newton's method finds from where it stood.

    Args:
        table: what is fitted.
        start: where all start.
        rate: of Adam.
    """
    columns = table.train.x.shape[1]
    init = {"weight": jnp.zeros((columns, table.outputs)), "bias": jnp.zeros(table.outputs)}
    train, valid = (
        (*map(jnp.asarray, part), jnp.asarray(table.group)) for part in (table.train, table.valid)
    )
    data = DataLoss(table.model)
    hyper = {"penalties": jnp.exp(jnp.asarray(start.log_penalties, jnp.float32))}
    for report in rfho.iterate(
        rfho.Problem(rfho.dynamics.Newton(TrainingLoss(data), init), data, train, valid, horizon=4),
        hyper,
        method=rfho.ImplicitHyperGradient(inner_tolerance=1e-4, tolerance=1e-2, audit=None),
        optim=optax.adam(rate),
        domain=rfho.LogBox(float(np.exp(BOUNDS[0])), float(np.exp(BOUNDS[1]))),
        steps=10**6,
    ):
        # The value of a step belongs to the λ before it.
        yield Move(report.value, np.log(np.asarray(hyper["penalties"], float)))
        hyper = report.hyper
