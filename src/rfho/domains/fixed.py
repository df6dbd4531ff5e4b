"""A leaf that is given and not learned."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Num

from rfho._programs import trees as tree
from rfho._programs.tracing import is_traced
from rfho.domains.base import AbstractDomain


class Fixed(AbstractDomain):
    """Marks a leaf of ``hyper`` that keeps the value it was given.

    The projection is the identity: it is the outer step that leaves a fixed leaf alone.
    Unlike the other domains it holds anything: integers, booleans and infinities too.

    Example:
        >>> import rfho
        >>> domain = {"lr": rfho.Positive(), "beta": rfho.Fixed()}
    """

    def project(self, x: Num[Array, "*shape"]) -> Num[Array, "*shape"]:
        """The identity."""
        return x

    def contains(self, x: Num[Array, "..."], tol: float = 1e-6) -> Bool[Array, ""]:
        """Whether ``x`` has no NaN."""
        return ~jnp.any(jnp.isnan(x))

    def objection(self, x: Any) -> str | None:
        """Objects to NaN only."""
        if tree.is_inexact_number(x) and not is_traced(x) and jnp.isnan(x).any():
            return "has a NaN, and Fixed() would keep it: give a number"
        return None
