"""One step of momentum in integers, and the step undone (alg. 3 of arXiv 1502.03492).

    forward                              backward
    (m, i) ← m n/d                       w ← w + η m
    m ← m + g(w)                         m ← m - g(w)
    w ← w - η m                          (m, i) ← m d/n

Trees hold one `Words` for each leaf of the parameters. The head i of a leaf's buffer spills 16 bits
to the tape whenever it might overflow; as its bound depends on momentum alone, all elements of a
leaf spill at the same steps, and the tape is filled row by row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from rfho.dynamics import integers as fixed_point
from rfho.dynamics.integers import Words
from rfho.typing import Params, PyTree, Step


class Digits(NamedTuple):
    """A state in integers; each attribute is a tree of `Words` in the structure of the parameters.

    Attributes:
        params: w_t, in units of 2^-bits.
        velocity: m_t, likewise.
        head: i_t, the part of the information buffer that is at work.
    """

    params: PyTree
    velocity: PyTree
    head: PyTree


class Turn(NamedTuple):
    """What is settled about a step before it is taken; each attribute a tree with a scalar per leaf.

    Attributes:
        numerator: n of μ_t = n/d.
        spill: whether 16 bits leave the head before the product.
        row: the row of the tape that is filled next.
    """

    numerator: PyTree
    spill: PyTree
    row: PyTree


class Plan(NamedTuple):
    """All turns of a run.

    Attributes:
        turns: a `Turn` with a leading axis of T steps.
        rows: for each leaf, the rows of the tape that the run fills.
        bits: for each leaf, the bits per parameter that the run puts into its buffer.
    """

    turns: Turn
    rows: PyTree
    bits: PyTree


def planned(numerators: Callable[[Step], PyTree], like: Params, horizon: int) -> Plan:
    """The turns of T steps with momentum n/d, n from ``numerators(t)``; ``like`` gives structure alone."""

    def turn(carry: tuple[PyTree, PyTree], t: Array) -> tuple[tuple[PyTree, PyTree], Turn]:
        bound, row = carry
        n = numerators(t)
        bound, spill = leafwise(fixed_point.room, like, bound, n)
        after = jax.tree.map(lambda row, spill: row + spill, row, spill)
        return (bound, after), Turn(n, spill, row)

    start = empty_bound(like), jax.tree.map(lambda w: jnp.zeros((), jnp.int32), like)
    (bound, rows), turns = jax.lax.scan(turn, start, jnp.arange(horizon))
    spilled = jax.tree.map(lambda row: fixed_point.SPILLED * row, rows)
    held = jax.tree.map(lambda w, b: fixed_point.bits_below(b), like, bound)
    return Plan(turns, rows, jax.tree.map(jnp.add, spilled, held))


def at_rest(params: Params, bits: int) -> Digits:
    """Parameters without velocity, and an empty buffer."""
    nothing = jax.tree.map(lambda w: fixed_point.zeros(w.shape), params)
    put = lambda w, zero: fixed_point.add(zero, w, bits)  # noqa: E731
    return Digits(jax.tree.map(put, params, nothing), nothing, nothing)


def empty_bound(like: Params) -> PyTree:
    """For each leaf the bound of an empty head."""
    return jax.tree.map(lambda w: fixed_point.bound_of_empty(), like)


def in_floats(numbers: PyTree, like: Params, bits: int) -> Params:
    """Numbers as floats, in the dtypes of ``like``."""
    return jax.tree.map(lambda w, n: fixed_point.decoded(n, bits, w.dtype), like, numbers)


def words_at_risk(digits: Digits, like: Params) -> PyTree:
    """The 16 bits of every head that leave next."""
    return jax.tree.map(lambda w, i: fixed_point.lowest(i), like, digits.head)


def take(
    digits: Digits, gradient: PyTree, move: Callable[[Params], PyTree], *, turn: Turn, bits: int
) -> Digits:
    """One step forward; ``move`` is m ↦ η m."""

    def multiplied(m: Words, i: Words, n: Array, spill: Array) -> tuple[Words, Words]:
        i = _where(spill, fixed_point.without_lowest(i), i)
        return fixed_point.multiply(m, i, n)

    velocity, head = leafwise(
        multiplied, gradient, digits.velocity, digits.head, turn.numerator, turn.spill
    )
    velocity = jax.tree.map(lambda g, m: fixed_point.add(m, g, bits), gradient, velocity)
    step = move(in_floats(velocity, gradient, bits))
    params = jax.tree.map(lambda η_m, w: fixed_point.subtract(w, η_m, bits), step, digits.params)
    return Digits(params, velocity, head)


def undo(
    digits: Digits,
    gradient: Callable[[Params], PyTree],
    move: Callable[[Params], PyTree],
    *,
    turn: Turn,
    words: PyTree,
    bits: int,
    like: Params,
) -> tuple[Digits, PyTree]:
    """The digits before a step, and the gradient there, which is computed anew.

    ``words`` are the 16 bits of every head that were spilled, where ``turn`` says that any were.
    """
    step = move(in_floats(digits.velocity, like, bits))
    params = jax.tree.map(lambda η_m, w: fixed_point.add(w, η_m, bits), step, digits.params)
    g = gradient(in_floats(params, like, bits))
    velocity = jax.tree.map(lambda g, m: fixed_point.subtract(m, g, bits), g, digits.velocity)

    def divided(m: Words, i: Words, n: Array, spill: Array, word: Array) -> tuple[Words, Words]:
        m, i = fixed_point.divide(m, i, n)
        return m, _where(spill, fixed_point.with_lowest(i, word), i)

    velocity, head = leafwise(divided, g, velocity, digits.head, turn.numerator, turn.spill, words)
    return Digits(params, velocity, head), g


def leafwise(
    function: Callable[..., tuple[Any, ...]], like: PyTree, *trees: PyTree
) -> tuple[PyTree, ...]:
    """``function`` of what ``trees`` have in place of the leaves of ``like``: a tree for each result."""
    structure = jax.tree.structure(like)
    places = (structure.flatten_up_to(tree) for tree in trees)
    results = [tuple(function(*row)) for row in zip(*places, strict=True)]
    return tuple(structure.unflatten(column) for column in zip(*results, strict=True))


def _where(condition: Bool[Array, ""], yes: Words, no: Words) -> Words:
    return Words(jnp.where(condition, yes.high, no.high), jnp.where(condition, yes.low, no.low))
