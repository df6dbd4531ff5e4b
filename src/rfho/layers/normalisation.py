"""Batch normalisation whose running statistics carry derivatives.

    μ_t = mean of x_t,  σ²_t = variance of x_t,   m_t = β m_{t-1} + (1 - β) μ_t,   v_t = β v_{t-1} + (1 - β) σ²_t

In training x is normalised by μ_t and σ²_t, in evaluation by m and v (arXiv 1502.03167). m and v depend on all
parameters that training went through; layers that stop their gradient give hypergradients of the wrong sign.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class Statistics(NamedTuple):
    """What a normalisation carries from step to step.

    Attributes:
        mean: m, shape (features,).
        var: v, shape (features,).
    """

    mean: Array
    var: Array


def statistics(features: int, dtype: str = "float32") -> Statistics:
    """Those of the start: mean 0 and variance 1.

    Args:
        features: the size of the last axis.
        dtype: that of the parameters.

    Example:
        >>> import rfho
        >>> rfho.layers.statistics(3).var.tolist()
        [1.0, 1.0, 1.0]
    """
    return Statistics(jnp.zeros(features, dtype), jnp.ones(features, dtype))


def normalised(
    x: Float[Array, "*examples features"],
    carried: Statistics,
    *,
    momentum: float | Array = 0.9,
    epsilon: float | Array = 1e-5,
) -> tuple[Float[Array, "*examples features"], Statistics]:
    """In training: x normalised by its own mean and variance, and the statistics after it.

    Args:
        x: a batch; everything but the last axis is averaged over.
        carried: the statistics of the step before.
        momentum: β; may be a hyperparameter, as ``epsilon`` may.
        epsilon: what is added to the variance.

    Returns:
        The normalised batch, and `Statistics` to carry on. Scale and shift are the caller's.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> x = jnp.array([[1.0], [3.0]])
        >>> y, carried = rfho.layers.normalised(x, rfho.layers.statistics(1))
        >>> y.round(3).tolist(), carried.mean.round(3).tolist()
        ([[-1.0], [1.0]], [0.20000000298023224])
    """
    axes = tuple(range(x.ndim - 1))
    now = Statistics(x.mean(axes), x.var(axes))
    after = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, carried, now)
    return normalised_by(x, now, epsilon=epsilon), after


def normalised_by(
    x: Float[Array, "*examples features"], carried: Statistics, *, epsilon: float | Array = 1e-5
) -> Float[Array, "*examples features"]:
    """In evaluation: x normalised by the statistics that training has left.

    Args:
        x: a batch, or one example.
        carried: the statistics.
        epsilon: as in training.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> rfho.layers.normalised_by(jnp.ones(2), rfho.layers.statistics(2)).round(3).tolist()
        [1.0, 1.0]
    """
    return (x - carried.mean) * jax.lax.rsqrt(carried.var + epsilon)
