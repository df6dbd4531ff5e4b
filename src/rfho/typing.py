"""The aliases that signatures share.

Everything is a pytree: ``Hyper`` λ, ``State`` s_t, ``Params`` w_t, ``Batch`` b_t. The names say
which noun of arXiv 1703.01785 is meant; shapes are free unless a docstring fixes them.
"""

from collections.abc import Callable
from typing import Any

from jax import Array
from jaxtyping import Float, Int

PyTree = Any
"""Any nesting of containers that JAX knows, with arrays at the leaves."""

Hyper = Any
"""λ: a pytree of floating-point arrays; a `Fixed` leaf may hold anything."""

State = Any
"""s_t: parameters, the optimiser's slots and whatever else the dynamics carry."""

Params = Any
"""w_t: what objectives look at, the output of a state."""

Batch = Any
"""b_t: the data of one step; a pytree of arrays, or None."""

Scalar = Float[Array, ""]
"""A floating-point array of shape ()."""

Step = Int[Array, ""] | int
"""The index t of an inner step, counted from 0."""

Loss = Callable[[Params, Hyper, Batch], Scalar]
"""The one signature of user functions: ``(params, hyper, batch) -> scalar``."""
