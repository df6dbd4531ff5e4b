"""Parameters beside what is carried from step to step without being trained."""

from typing import NamedTuple

from rfho.typing import Params, PyTree


class Variables(NamedTuple):
    """Trained parameters, and arrays that a loss hands from each step to the next.

    Batch statistics, counters, a key: what a layer keeps between its calls. It is part of the state, so
    that derivatives pass through it where it is of floating point.

    Attributes:
        params: w, of floating-point arrays.
        carried: any arrays.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> start = rfho.Variables({"w": jnp.ones(3)}, {"mean": jnp.zeros(3), "seen": jnp.array(0)})
    """

    params: Params
    carried: PyTree


def parted(params: Params) -> Variables:
    """``params`` as `Variables`; without any, nothing is carried."""
    return params if isinstance(params, Variables) else Variables(params, None)


def like(params: Params, trained: Params, carried: PyTree) -> Params:
    """``trained`` and ``carried`` in the form of ``params``: together, or the former alone."""
    return Variables(trained, carried) if isinstance(params, Variables) else trained
