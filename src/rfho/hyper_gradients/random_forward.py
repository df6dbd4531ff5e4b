"""Forward-HO along random directions: memory free of the horizon and of the number of hyperparameters.

The derivative along u costs one tangent, whatever λ holds. With b random directions, orthonormal
and otherwise uniform, the projections of ∇f on them, scaled, are right on average:

    ĝ = m/b Σ_k (∇f · u_k) u_k,    E ĝ = ∇f,    E‖ĝ - ∇f‖² = (m/b - 1) ‖∇f‖²

(FG)²U (NeurIPS 2024) draws directions independently, as do forward gradients (arXiv 2202.08587);
then the variance is (m - 1)/b ‖∇f‖² with signs and (m + 1)/b ‖∇f‖² with Gaussian entries. Among
unbiased combinations of b derivatives none is better on all gradients than orthonormal directions,
and b = m gives ∇f itself.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

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


class RandomForwardHyperGradient(AbstractHyperGradient):
    r"""Unbiased hypergradient from a few forward tangents along random directions.

    For many hyperparameters and long horizons at once, where neither `ForwardHyperGradient` nor
    stored states are affordable, and an outer optimiser that averages over noise. Each outer step
    draws anew.

    .. math:: \hat g = \frac{m}{b} \sum_{k=1}^{b} (\nabla f \cdot u_k) \, u_k,
              \quad \mathbb{E} \, \hat g = \nabla f

    Args:
        directions: b. From ``b = m`` on, the number of scalars in λ, it is `ForwardHyperGradient`
            in another basis.
        key: a JAX random key, or an int as its seed.
        chunk: directions pushed at a time; all b by default. Memory is ``chunk`` states, time grows
            by one training run per chunk.

    Cost:
        Time O(T b), about 1 + 1.5 b times plain training; memory O(chunk) states and b copies of λ.
        Unbiased with standard error :math:`\sqrt{m/b - 1} \, \|\nabla f\|`, the least for b
        derivatives. Needs dynamics that can be differentiated in forward mode.

    Aux:
        ``stats["standard_error"]``: an estimate of the root mean square of ‖ĝ - ∇f‖, over all
        objectives if there are several; ``stats["rounding"]``: what arithmetic may leave;
        ``stats["tangent_norm"]``: ‖Z_T‖ over all directions.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.RandomForwardHyperGradient(directions=8, key=0)
    """

    directions: int = eqx.field(static=True)
    key: Array
    chunk: int | None = eqx.field(static=True)

    def __init__(self, directions: int, key: Array | int, *, chunk: int | None = None) -> None:
        name = type(self).__name__
        self.directions = positive_int(directions, "directions", name)
        self.chunk = None if chunk is None else positive_int(chunk, "chunk", name)
        self.key = tree.as_key(key, type(self).__name__)

    @property
    def mode(self) -> Mode:
        """Forward."""
        return Mode.FORWARD

    @property
    def trains_anew(self) -> bool:
        """It is."""
        return True

    def cost(self, parts: Parts) -> Forecast:
        """b directions over the whole run, and b copies of λ twice."""
        count = min(self.directions, parts.m)
        forward = parts.of_forward(count, self.chunk)
        return forward._replace(memory=forward.memory + 2 * count * tree.nbytes(parts.hyper))

    def init(self, problem: AbstractMoment, hyper: Hyper) -> Int[Array, ""]:
        """The number of draws so far."""
        return jnp.zeros((), jnp.int32)

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: Int[Array, ""]
    ) -> tuple[Estimate, Int[Array, ""]]:
        """ĝ for a new draw of directions, chunk by chunk."""
        axes = coordinates(hyper)
        count = min(self.directions, axes.number)
        chunk = min(self.chunk or count, count)
        kind = ravel_pytree(axes.hyper)[0].dtype
        drawn = orthonormal(jax.random.fold_in(self.key, carry), count, axes.number).astype(kind)
        # Zeros fill the last chunk up: they derive to zero.
        rows = jnp.pad(drawn, ((0, -count % chunk), (0, 0))).reshape(-1, chunk, axes.number)

        def along(rows: Float[Array, "chunk m"]) -> tuple[Array, Array, Array, Array, State]:
            _, unravel = ravel_pytree(axes.hyper)
            directions = jax.vmap(unravel)(rows)
            pushed = start(problem, hyper, directions)
            pushed = push_steps(
                problem, hyper, pushed, directions=directions, count=problem.horizon
            )
            reading, derivatives = read_along(problem, hyper, pushed, directions=directions)
            # ĝ is a sum over directions, so that chunks only have to be added up.
            estimate = axes.number / count * derivatives @ rows.astype(derivatives.dtype)
            length = tree.norm(pushed.tangent)
            left = axes.number / count * rounding_along(problem, hyper, reading, length)
            return reading.value, estimate, length**2, left**2, pushed.state

        if rows.shape[0] == 1:
            value, estimate, squared, left, state = along(rows[0])
        else:
            # All chunks train alike: only the last one's value and state are held, not all of them.
            def one(sums: PyTree, rows: Float[Array, "chunk m"]) -> tuple[PyTree, None]:
                value, *found, state = along(rows)
                added = jax.tree.map(jnp.add, sums[1:-1], tuple(found))
                return (value, *added, state), None

            blank = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)  # noqa: E731
            sums = jax.tree.map(blank, jax.eval_shape(along, rows[0]))
            (value, estimate, squared, left, state), _ = jax.lax.scan(one, sums, rows)
        stats = {
            # ‖ĝ‖² is m/b ‖∇f‖² on average, so that this squared is the variance on average.
            "standard_error": jnp.sqrt(1 - count / axes.number) * jnp.linalg.norm(estimate),
            "rounding": jnp.sqrt(left),
            "tangent_norm": jnp.sqrt(squared),
        }
        hypergradient = axes.assemble(problem, estimate)
        aux = aux_of(problem, state, stats)
        return Estimate(problem.values(value), hypergradient, aux), carry + 1

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: Int[Array, ""]
    ) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run."""
        return evaluated(problem, hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates."""


def orthonormal(key: Array, count: int, dimension: int) -> Float[Array, "count dimension"]:
    """``count`` orthonormal vectors that span a uniformly distributed subspace."""
    basis, _ = jnp.linalg.qr(jax.random.normal(key, (dimension, count)))
    return basis.T
