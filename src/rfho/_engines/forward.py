"""Forward-HO: push the state and its tangent together (alg. 2 of arXiv 1703.01785).

    Z_0 = ∂Φ_0/∂λ D,    Z_t = A_t Z_{t-1} + B_t D,    ∇f D = ∂E/∂λ D + ∂E/∂s_T Z_T

D holds the directions, one per row of the code's leading axis: the coordinates of λ for the whole
hypergradient, anything else for directional derivatives.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from rfho._programs import trees as tree
from rfho._programs.shared_products import SharedProducts
from rfho.problem.moment import AbstractMoment
from rfho.problem.objective import Reading
from rfho.typing import Hyper, PyTree, State, Step


class Pushed(NamedTuple):
    """A state and its tangent.

    Attributes:
        state: s_t.
        tangent: Z_t, the inexact leaves of the state with a leading axis of directions.
    """

    state: State
    tangent: PyTree


def start(problem: AbstractMoment, hyper: Hyper, directions: Hyper) -> Pushed:
    """s_0 and Z_0 = ∂Φ_0/∂λ D."""

    def init(hyper: Hyper) -> tuple[PyTree, PyTree]:
        return tree.split(problem.init(hyper))

    state, push, rest = jax.linearize(init, hyper, has_aux=True)
    return Pushed(eqx.combine(state, rest), jax.vmap(push)(directions))


def push(
    problem: AbstractMoment,
    hyper: Hyper,
    pushed: Pushed,
    *,
    directions: Hyper,
    t: Step,
    sharing: SharedProducts = SharedProducts(),
) -> Pushed:
    """One step: one linearisation, pushed along every direction."""

    def pushed_once(pushed: Pushed, directions: Hyper) -> Pushed:
        inside, rest = tree.split(pushed.state)

        def step(inside: PyTree, hyper: Hyper) -> tuple[PyTree, PyTree]:
            return tree.split(problem.step(eqx.combine(inside, rest), hyper, t))

        # Z_t = A_t Z_{t-1} + B_t D (eq. 13)
        state, push_one, rest = jax.linearize(step, inside, hyper, has_aux=True)
        return Pushed(eqx.combine(state, rest), _along(push_one, pushed.tangent, directions))

    return sharing(pushed_once)(pushed, directions)


def push_steps(
    problem: AbstractMoment,
    hyper: Hyper,
    pushed: Pushed,
    *,
    directions: Hyper,
    count: int,
    first: Step = 0,
    discount: float = 1.0,
) -> Pushed:
    """The steps t = first, …, first + count - 1; Z is multiplied by ``discount`` before each."""

    def one(i: Array, pushed: Pushed) -> Pushed:
        if discount != 1:
            faded = jax.tree.map(lambda z: discount * z, pushed.tangent)
            pushed = pushed._replace(tangent=faded)
        return push(problem, hyper, pushed, directions=directions, t=first + i)

    problem = problem.at(problem.k)  # fresh data are drawn once, not at every step
    directions = apart(directions)
    pushed = pushed._replace(tangent=apart(pushed.tangent))
    pushed = jax.lax.fori_loop(0, count, one, pushed)
    return pushed._replace(tangent=_stacked(pushed.tangent))


APART = 12
"""Up to so many directions are pushed as arrays of their own: a matrix product with one of several stacked
matrices lays them out anew at every step."""


class Apart(NamedTuple):
    """Tangents or directions, one by one instead of stacked."""

    each: tuple[PyTree, ...]


def apart(stacked: PyTree) -> PyTree:
    """Tangents or directions one by one if they are few, stacked as they are otherwise."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    if count > APART:
        return stacked
    return Apart(tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)))


def _stacked(tangents: PyTree) -> PyTree:
    if not isinstance(tangents, Apart):
        return tangents
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tangents.each)


def _along(push_one: Callable[..., PyTree], tangents: PyTree, directions: PyTree) -> PyTree:
    if isinstance(tangents, Apart):
        return Apart(tuple(map(push_one, tangents.each, directions.each)))
    return jax.vmap(push_one)(tangents, directions)


def read_along(
    problem: AbstractMoment, hyper: Hyper, pushed: Pushed, *, directions: Hyper
) -> tuple[Reading, Float[Array, "*objectives directions"]]:
    """The objectives at s_t, and their derivatives ∂E/∂λ D + ∂E/∂s_t Z_t (eq. 14)."""
    reading = problem.read(pushed.state, hyper)

    def along(by_state: PyTree, by_hyper: Hyper) -> Float[Array, " directions"]:
        through = jax.vmap(lambda z, d: tree.dot(by_state, z) + tree.dot(by_hyper, d))
        return through(pushed.tangent, directions)

    several = reading.value.ndim == 1
    return reading, (jax.vmap(along) if several else along)(reading.by_state, reading.by_hyper)


class Coordinates(NamedTuple):
    """The coordinate directions of λ, and the way back from numbers along them to a hypergradient.

    Attributes:
        number: m, the number of scalars in λ.
    """

    hyper: Hyper
    number: int

    def directions(self, index: Array) -> Hyper:
        """The unit vectors of ``index`` (shape (m',)), in the structure of λ with a leading axis."""
        flat, unravel = ravel_pytree(self.hyper)
        return jax.vmap(unravel)(jax.nn.one_hot(index, self.number, dtype=flat.dtype))

    def own_objective(self, problem: AbstractMoment) -> Array:
        """For each coordinate, the index of the objective that it follows."""
        owner = problem.objective_of(self.hyper)
        spread = jax.tree.map(lambda i, leaf: jnp.full(jnp.shape(leaf), i), owner, self.hyper)
        return ravel_pytree(spread)[0]

    def assemble(
        self, problem: AbstractMoment, derivatives: Float[Array, "*objectives m"]
    ) -> Hyper:
        """The hypergradient from the derivatives along all coordinates."""
        if derivatives.ndim == 2:
            derivatives = derivatives[self.own_objective(problem), jnp.arange(self.number)]
        flat, unravel = ravel_pytree(self.hyper)
        return unravel(derivatives.astype(flat.dtype))


def coordinates(hyper: Hyper) -> Coordinates:
    """The coordinates of ``hyper``."""
    return Coordinates(hyper, tree.size(hyper))
