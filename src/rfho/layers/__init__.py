"""The few layers whose usual forms have no second derivative, or a wrong one, with derivatives of every order.

They are plain functions of arrays and work in both modes, under every transformation, and in any framework that
computes in JAX.
"""

from rfho.layers.attention import attention
from rfho.layers.embedding import embedding
from rfho.layers.normalisation import Statistics, normalised, normalised_by, statistics

__all__ = [
    "Statistics",
    "attention",
    "embedding",
    "normalised",
    "normalised_by",
    "statistics",
]
