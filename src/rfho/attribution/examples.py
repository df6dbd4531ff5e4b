"""Which examples are in which batch: training data with their numbers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from rfho.placement.batches import Spread
from rfho.problem import Indexed, Keyed, Stream
from rfho.problem.stream import common_length
from rfho.typing import Batch, PyTree, Step


class Examples(eqx.Module):
    """Training data whose examples are numbered from 0 to n - 1.

    Attributes:
        data: with a leading axis of n.
        order: the batches of numbers, a `Stream` or `Indexed` of them; None where every example is in every
            batch.
        chosen: the numbers in use where ``order`` is None; None for all.
        key: of what is drawn beside the examples; None if nothing is.
    """

    data: PyTree
    order: Stream | Indexed | None
    chosen: Int[Array, " chosen"] | None = None
    key: Array | None = None

    @property
    def number(self) -> int:
        """How many there are."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def everything(self) -> bool:
        """Whether every batch is all of the data."""
        return self.order is None and self.chosen is None

    @property
    def size(self) -> int:
        """Examples in a batch."""
        return self.index(0).shape[0]

    def index(self, t: Step) -> Int[Array, " size"]:
        """The numbers of the examples in batch t."""
        if self.order is not None:
            return self.order(t)
        return jnp.arange(self.number) if self.chosen is None else self.chosen

    def batch(self, t: Step) -> Batch:
        """Batch t, as the problem has it."""
        batch = self.data
        if not self.everything:
            index = self.index(t)
            batch = jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), self.data)
        return batch if self.key is None else (batch, Keyed(None, self.key)(t)[1])

    def steps(self, chosen: int, horizon: int) -> int:
        """As many epochs of ``chosen`` examples as ``horizon`` steps are of all; at least one step."""
        if self.order is None:
            return horizon
        return max(1, round(horizon * (chosen // self.size) / (self.number // self.size)))

    def anew(self, chosen: Int[Array, " chosen"], key: Array) -> "Examples":
        """The chosen examples alone, in another order."""
        for_order, for_rest = jax.random.split(key)
        rest = None if self.key is None else for_rest
        if self.order is None:
            return Examples(self.data, None, chosen, rest)
        return Examples(self.data, Stream(chosen, self.size, for_order), None, rest)


def examples_of(train: Any) -> Examples:
    """The examples behind a problem's training data.

    Raises:
        TypeError: nobody knows which example is in which batch.
        ValueError: the arrays do not have one example in each row.
    """
    if isinstance(train, Keyed):
        inner = examples_of(train.data)
        return Examples(inner.data, inner.order, None, train.key)
    if isinstance(train, Spread):
        # A batch is the same one wherever its examples lie.
        return examples_of(train.data)
    if isinstance(train, Stream | Indexed):
        numbers = jnp.arange(common_length(train.data, "train"))
        return Examples(train.data, eqx.tree_at(lambda stream: stream.data, train, numbers))
    if train is None or callable(train):
        raise TypeError(
            f"train is {'None' if train is None else 'a ' + type(train).__name__}, but influence has to know which "
            "example is in which batch: give the problem a rfho.Stream, rfho.Indexed, or arrays"
        )
    common_length(train, "train")
    return Examples(train, None)
