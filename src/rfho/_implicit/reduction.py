r"""The mean of many terms from one of them at each step, with a noise that dies away where nothing moves.

.. math:: D(z) = \tfrac1n \sum_i D_i(z)

of which step k sees the number i alone. Two estimators of D(z_k) remember what earlier steps have seen.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho.errors import positive_int
from rfho.problem.moment import AbstractMoment
from rfho.problem.stream import Indexed
from rfho.problem.tasks import TaskBatches
from rfho.typing import Batch, PyTree, Step

Term = Callable[[PyTree, Step], PyTree]
"""``(z, i) -> D_i(z)``."""


class AbstractReduction(eqx.Module):
    """How D(z) is told from one of its terms."""

    @abc.abstractmethod
    def init(self, term: Term, point: PyTree, *, count: int) -> Any:
        """What is remembered before the first step, at z = ``point`` with n = ``count``."""

    @abc.abstractmethod
    def reduced(
        self, term: Term, memory: Any, *, point: PyTree, number: Step, count: int
    ) -> tuple[PyTree, Any]:
        """An estimate of D(z), and what is remembered after it."""

    @abc.abstractmethod
    def terms_per_step(self, count: int) -> int:
        """How many terms a step takes, on average and rounded up."""

    @abc.abstractmethod
    def rows(self, count: int) -> int:
        """How many terms are remembered."""


class Table(NamedTuple):
    """What every term was when it was last seen, with a leading axis of n, and their mean."""

    rows: PyTree
    mean: PyTree


class SAGA(AbstractReduction):
    r"""The mean of a table that holds every term as it was last seen, corrected by the newest (arXiv 1407.0202).

    .. math:: D_i(z) - d_i + \tfrac1n \sum_j d_j, \quad \text{then } d_i \leftarrow D_i(z)

    One term a step, after one look at all of them; unbiased. It keeps n terms.

    Example:
        >>> import rfho
        >>> saba = rfho.VarianceReducedHyperGradient(0.1, rfho.hyper_gradients.SAGA())
    """

    def init(self, term: Term, point: PyTree, *, count: int) -> Table:
        """All terms at z."""
        rows = jax.lax.map(lambda i: term(point, i), jnp.arange(count))
        return Table(rows, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), rows))

    def reduced(
        self, term: Term, memory: Table, *, point: PyTree, number: Step, count: int
    ) -> tuple[PyTree, Table]:
        """One term, its difference from what it was, and the mean."""
        newest = term(point, number)
        change = jax.tree.map(lambda new, rows: new - rows[number], newest, memory.rows)
        rows = jax.tree.map(lambda rows, new: rows.at[number].set(new), memory.rows, newest)
        mean = tree.add(memory.mean, tree.scale(1 / count, change))
        return tree.add(memory.mean, change), Table(rows, mean)

    def terms_per_step(self, count: int) -> int:
        """One."""
        return 1

    def rows(self, count: int) -> int:
        """All."""
        return count


class Recursion(NamedTuple):
    """The last z and the estimate there, and how many steps there have been."""

    point: PyTree
    found: PyTree
    step: Int[Array, ""]


class SARAH(AbstractReduction):
    r"""Changes of one term after another, added up from a look at all of them (arXiv 1703.00102).

    .. math:: g_k = D_i(z_k) - D_i(z_{k-1}) + g_{k-1}, \quad g_k = D(z_k) \text{ every P steps}

    Two terms a step, and n every P steps; it keeps one.

    Args:
        period: P; about the number of batches makes both parts cost the same.

    Example:
        >>> import rfho
        >>> srba = rfho.VarianceReducedHyperGradient(0.1, rfho.hyper_gradients.SARAH(period=100))
    """

    period: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        positive_int(self.period, "period", "SARAH")

    def init(self, term: Term, point: PyTree, *, count: int) -> Recursion:
        """Nothing yet: the first step looks at all."""
        shapes = jax.eval_shape(lambda: term(point, 0))
        found = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return Recursion(point, found, jnp.zeros((), jnp.int32))

    def reduced(
        self, term: Term, memory: Recursion, *, point: PyTree, number: Step, count: int
    ) -> tuple[PyTree, Recursion]:
        """A change, or all terms."""

        def all_terms() -> PyTree:
            add = lambda i, total: tree.add(total, term(point, i))  # noqa: E731
            zeros = jax.tree.map(jnp.zeros_like, memory.found)
            return tree.scale(1 / count, jax.lax.fori_loop(0, count, add, zeros))

        def changed() -> PyTree:
            change = tree.subtract(term(point, number), term(memory.point, number))
            return tree.add(memory.found, change)

        found = jax.lax.cond(memory.step % self.period == 0, all_terms, changed)
        return found, Recursion(point, found, memory.step + 1)

    def terms_per_step(self, count: int) -> int:
        """Two, and its share of all."""
        return 2 + -(-count // self.period)

    def rows(self, count: int) -> int:
        """One, beside the point where it was found."""
        return 1


class Numbered(NamedTuple):
    """Data as a fixed list of batches.

    Attributes:
        rows: how many there are.
        number: of the batch of step t, counted from the first of all.
        batch: that has a number.
    """

    rows: int
    number: Callable[[Step], Any]
    batch: Callable[[Step], Batch]


def numbered(problem: AbstractMoment) -> Numbered:
    """A problem's training data as a fixed list of batches; arrays are one.

    Raises:
        TypeError: the batches of an epoch are not those of the next, or nobody knows.
    """
    train = problem.at(problem.k).train
    if isinstance(train, Indexed):
        return Numbered(train.index.shape[0], train.number, train.batch)
    whole = isinstance(train, TaskBatches) and not callable(train.train)
    if whole or not callable(train):
        return Numbered(1, lambda t: 0, lambda i: train(0) if whole else train)
    raise TypeError(
        f"train is a {type(train).__name__}, but a method with variance reduction has to know which of a fixed "
        "list of batches a step sees: write rfho.Indexed(data, order.reshape(-1, size), key=0) with a permutation "
        "order of the examples, or use rfho.SingleLoopHyperGradient"
    )
