r"""A mean over many examples in the memory of a few.

.. math:: E(w, \lambda) = \tfrac1n \sum_i E_i(w, \lambda)

The objective is often read on far more examples than a step of training sees, and its gradient then
needs more memory than the whole way back. Chunk after chunk is evaluated, and evaluated once more when
its derivative is asked for (arXiv 1604.06174), so that one chunk's activations are alive at a time.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.errors import positive_int
from rfho.problem.stream import common_length
from rfho.typing import Batch, Hyper, Loss, Params, Scalar


class InChunks(eqx.Module):
    """A loss or objective that reads its batch chunk by chunk, as `in_chunks` makes it."""

    function: Any
    size: int = eqx.field(static=True)

    def __call__(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """The mean of ``function`` over the chunks of ``batch``."""
        length = common_length(batch, "the batch of in_chunks")
        if length % self.size:
            raise ValueError(
                f"in_chunks of {self.size} got a batch of {length} examples: a mean over chunks needs "
                f"chunks of one size, so give a size that divides {length}"
            )
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, self.size, *leaf.shape[1:]), batch)
        evaluate = jax.checkpoint(lambda chunk: self.function(params, hyper, chunk))
        return jnp.mean(jax.lax.map(evaluate, chunks))


def in_chunks(function: Loss, size: int) -> InChunks:
    """The same mean loss or objective, ``size`` examples at a time.

    Args:
        function: ``(params, hyper, batch) -> scalar``, a mean over the examples of the batch.
        size: examples per chunk; it must divide the batch.

    Returns:
        A function of the same arguments and, up to rounding, of the same value and derivatives. Memory:
        the activations of one chunk. Cost: each chunk is evaluated once more where it is
        differentiated.

    Raises:
        TypeError, ValueError: size is not a positive int; when called: the leading axes of the batch
            differ, or size does not divide them.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((w - batch) ** 2)
        >>> float(rfho.in_chunks(square, 2)(1.0, None, jnp.arange(4.0)))
        1.5
    """
    return InChunks(function, positive_int(size, "size", "in_chunks"))
