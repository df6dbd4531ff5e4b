r"""A loss whose examples have weights: what influence is the derivative by.

.. math:: L(w, \lambda, b) = \frac1{|b|} \sum_{i \in b} \varepsilon_i\, \ell_i(w, \lambda)

All weights are 1 while a model is trained. Leaving an example out is its weight at 0, as nothing is
divided by the sum of weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rfho.typing import Batch, Hyper, Params


class Weighed(eqx.Module):
    """A batch and the weights of its examples, as a weighted loss gets it; to all others it is the batch.

    Attributes:
        batch: as the problem has it.
        weights: ε of each example of the batch.
    """

    batch: Batch
    weights: Float[Array, " size"]

    def __getitem__(self, key: Any) -> Any:
        """A part of the batch, for what a loss adds to its examples."""
        return self.batch[key]

    def __iter__(self) -> Iterator[Any]:
        """The parts of the batch, likewise."""
        return iter(self.batch)


class Weighted(eqx.Module):
    """The mean over a batch of weighted losses, as `weighted` makes it."""

    each: Callable[[Params, Hyper, Batch], Any]

    def __call__(self, params: Params, hyper: Hyper, batch: Batch) -> Any:
        """L; with what ``each`` returns beside its losses, if anything."""
        given = isinstance(batch, Weighed)
        returned = self.each(params, hyper, batch.batch if given else batch)
        has_aux = isinstance(returned, tuple)
        losses = jnp.asarray(returned[0] if has_aux else returned)
        if losses.ndim != 1:
            raise TypeError(
                f"the loss given to weighted returned an array of shape {losses.shape}, but it must be one loss "
                "for each example of the batch, of shape (size,): leave out its mean, and sum over what belongs "
                "to one example"
            )
        if given:
            if losses.shape != batch.weights.shape:
                raise ValueError(
                    f"the loss given to weighted returned {losses.shape[0]} losses for a batch of "
                    f"{batch.weights.shape[0]} examples, but there must be one for each"
                )
            losses = batch.weights.astype(losses.dtype) * losses
        mean = jnp.mean(losses)
        return (mean, *returned[1:]) if has_aux else mean


def weighted(each: Callable[[Params, Hyper, Batch], Any]) -> Weighted:
    """The mean loss of a loss per example, whose examples `influence` can weigh.

    Use it inside of a larger loss too: ``weighted(each)(params, hyper, batch) + penalty``, with the batch as it
    comes.

    Args:
        each: ``(params, hyper, batch) -> losses`` of shape (size,), one for each example of the batch; or
            a pair of that and aux, for `rfho.Descent` with ``has_aux``.

    Raises:
        TypeError, ValueError: when called, the losses are not one for each example.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> loss = rfho.attribution.weighted(lambda w, hyper, batch: (w - batch) ** 2)
        >>> float(loss(1.0, None, jnp.array([1.0, 3.0])))
        2.0
    """
    if not callable(each):
        raise TypeError(f"weighted got {each!r}, but it must be a function (params, hyper, batch)")
    return Weighted(each)
