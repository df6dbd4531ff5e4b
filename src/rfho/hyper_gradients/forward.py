"""Forward-HO (alg. 2 of arXiv 1703.01785)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._engines.forward import coordinates, push_steps, read_along, start
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import (
    AbstractHyperGradient,
    Estimate,
    Mode,
    aux_of,
    evaluated,
    rounding_along,
)
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State


class ForwardHyperGradient(AbstractHyperGradient):
    r"""Exact hypergradient by pushing tangents along with training.

    The method of choice for few hyperparameters and long horizons: memory does not depend on T.

    .. math:: Z_t = A_t Z_{t-1} + B_t, \quad \nabla f = \partial_\lambda E + \partial_s E \, Z_T

    Args:
        chunk: directions pushed at a time; all m by default. Memory is ``chunk`` states, time grows
            by one training run per chunk.

    Cost:
        Time O(T m), about 1 + 1.5 m times plain training; memory O(chunk) states. Exact up to
        rounding. Needs dynamics that can be differentiated in forward mode.

    Aux:
        ``stats["tangent_norm"]``: ‖Z_T‖. ``stats["rounding"]``: what arithmetic may leave of the hypergradient.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.ForwardHyperGradient(chunk=10)
    """

    chunk: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.chunk is not None:
            positive_int(self.chunk, "chunk", type(self).__name__)

    @property
    def mode(self) -> Mode:
        """Forward."""
        return Mode.FORWARD

    @property
    def trains_anew(self) -> bool:
        """It is."""
        return True

    def cost(self, parts: Parts) -> Forecast:
        """All directions over the whole run."""
        return parts.of_forward(parts.m, self.chunk)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Nothing is carried."""

    def estimate(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[Estimate, None]:
        """∇f(λ), chunk by chunk of its coordinates."""
        axes = coordinates(hyper)
        chunk = min(self.chunk or axes.number, axes.number)
        chunks = -(-axes.number // chunk)
        index = jnp.arange(chunks * chunk).reshape(chunks, chunk)

        def along(index: Array) -> tuple[Array, Array, Array, Array, State]:
            directions = axes.directions(index)
            pushed = start(problem, hyper, directions)
            pushed = push_steps(
                problem, hyper, pushed, directions=directions, count=problem.horizon
            )
            reading, derivatives = read_along(problem, hyper, pushed, directions=directions)
            length = tree.norm(pushed.tangent)
            left = rounding_along(problem, hyper, reading, length)
            return reading.value, derivatives, length, left, pushed.state

        if chunks == 1:
            value, derivatives, length, left, state = along(index[0])
        else:
            # All chunks train alike: only the last one's value and state are held, not all of them.
            def one(_: PyTree, index: Array) -> tuple[PyTree, PyTree]:
                value, *found, state = along(index)
                return (value, state), tuple(found)

            (value, state), _ = jax.eval_shape(one, None, index[0])
            last = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (value, state))
            (value, state), (derivatives, length, left) = jax.lax.scan(one, last, index)
            derivatives = _joined(derivatives)[..., : axes.number]
        stats = {"tangent_norm": jnp.linalg.norm(length), "rounding": jnp.linalg.norm(left)}
        aux = aux_of(problem, state, stats)
        hypergradient = axes.assemble(problem, derivatives)
        return Estimate(problem.values(value), hypergradient, aux), carry

    def conclude(self, problem: AbstractMoment, hyper: Hyper, carry: None) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run."""
        return evaluated(problem, hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


def _joined(derivatives: Array) -> Array:
    # (chunks, *objectives, chunk) to (*objectives, chunks * chunk)
    derivatives = jnp.moveaxis(derivatives, 0, -2)
    return derivatives.reshape(*derivatives.shape[:-2], -1)
