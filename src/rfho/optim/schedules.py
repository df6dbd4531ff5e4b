"""Schedules that are differentiable in all their parameters, also under `jax.jit`.

A schedule is a function from the count of updates, 0, 1, 2, …, to a scalar, as Optax's
optimisers accept in the place of a learning rate. Optax's own ``exponential_decay``,
``piecewise_constant_schedule`` and warm-up schedules branch in Python on their parameters, so
under `jax.jit` they cannot be hyperparameters; these can.

The count is an integer and ``horizon`` a Python integer: both are beyond differentiation.
Everything else may be a traced scalar.
"""

import operator
from typing import SupportsIndex

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from rfho._programs.tracing import is_traced


def constant(value: ArrayLike) -> optax.Schedule:
    """The same value at each count.

    Args:
        value: scalar, may be traced.

    Returns:
        A schedule.

    Raises:
        ValueError: if ``value`` is not a scalar.

    Example:
        >>> import rfho
        >>> float(rfho.schedules.constant(0.5)(7))
        0.5
    """
    _require_scalar("constant", "value", value)
    return lambda count: jnp.asarray(value)


def piecewise(values: ArrayLike, horizon: SupportsIndex) -> optax.Schedule:
    """One value for each block of consecutive steps, and the last one beyond the horizon.

    The blocks divide ``horizon`` as evenly as ``numpy.array_split``: the first
    ``horizon % blocks`` of them are one step longer. With as many values as steps each step
    has its own, the learning-rate schedule of arXiv 1502.03492.

    Args:
        values: shape (blocks,), may be traced.
        horizon: number of steps that the blocks cover, at least ``blocks``.

    Returns:
        A schedule.

    Raises:
        TypeError: if ``horizon`` is not an integer.
        ValueError: if ``horizon`` is below 1, ``values`` is not one-dimensional or empty, or
            there are more values than steps, so that some would never be used.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> schedule = rfho.schedules.piecewise(jnp.array([0.5, 0.25]), 5)
        >>> [float(schedule(count)) for count in (0, 2, 3, 4, 99)]
        [0.5, 0.5, 0.25, 0.25, 0.25]
    """
    horizon = _require_horizon("piecewise", horizon)
    shape = np.shape(values)
    if len(shape) != 1 or not 1 <= shape[0] <= horizon:
        raise ValueError(
            f"schedules.piecewise got values of shape {shape} for a horizon of {horizon}, but "
            "expected shape (blocks,) with 1 <= blocks <= horizon: each block needs a step"
        )
    short, longer = divmod(horizon, shape[0])
    switch = longer * (short + 1)

    def schedule(count: ArrayLike) -> Array:
        count = jnp.asarray(count)
        in_longer = count // (short + 1)
        in_short = longer + (count - switch) // short
        block = jnp.where(count < switch, in_longer, in_short)
        return jnp.take(jnp.asarray(values), block, mode="clip")

    return schedule


def cosine(
    peak: ArrayLike,
    horizon: SupportsIndex,
    *,
    warmup: ArrayLike = 0,
    end: ArrayLike = 0.0,
) -> optax.Schedule:
    r"""A linear warm-up from zero to ``peak``, then a cosine down to ``end``.

    With n the count, w the warm-up and T the horizon,

    .. math::

        \eta(n) = \text{peak} \cdot n / w \quad (n < w), \qquad
        \eta(n) = \text{end} + (\text{peak} - \text{end})
            \tfrac12 \Bigl(1 + \cos \pi \frac{n - w}{T - w}\Bigr) \quad (w \le n \le T),

    and ``end`` from the horizon on (arXiv 1608.03983 without restarts). The warm-up is a real
    number of steps, not an integer, and the derivative with respect to it is right wherever
    no count lies exactly at its end. With a positive warm-up the very first update is zero.

    Args:
        peak: scalar, the value at the end of the warm-up; may be traced.
        horizon: number of steps, at least 1.
        warmup: scalar number of steps w, 0 <= w < horizon; may be traced. A traced warm-up
            cannot be checked: keep it in ``Box(0, horizon - 1)``. At or beyond the horizon,
            the value is ``end`` as soon as the warm-up is over.
        end: scalar, the value from the horizon on; may be traced.

    Returns:
        A schedule.

    Raises:
        TypeError: if ``horizon`` is not an integer.
        ValueError: if ``horizon`` is below 1, a parameter is not a scalar, or the warm-up is
            outside its range.

    Example:
        >>> import rfho
        >>> schedule = rfho.schedules.cosine(1.0, 6, warmup=2)
        >>> [round(float(schedule(count)), 3) for count in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    horizon = _require_horizon("cosine", horizon)
    for name, value in (("peak", peak), ("warmup", warmup), ("end", end)):
        _require_scalar("cosine", name, value)
    if not is_traced(warmup) and not 0 <= np.asarray(warmup) < horizon:
        raise ValueError(
            f"schedules.cosine got warmup={warmup} for a horizon of {horizon}, but expected "
            "0 <= warmup < horizon: leave at least one step to the cosine"
        )

    def schedule(count: ArrayLike) -> Array:
        top, bottom, ramp, n = _as_floats(peak, end, warmup, count)
        rising = top * n / jnp.where(ramp > 0, ramp, 1)
        length = horizon - ramp
        progress = jnp.where(length > 0, (n - ramp) / jnp.where(length > 0, length, 1), 1)
        falling = bottom + (top - bottom) * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))) / 2
        return jnp.where(n < ramp, rising, falling)

    return schedule


def exponential(init: ArrayLike, decay: ArrayLike, horizon: SupportsIndex) -> optax.Schedule:
    """A geometric decay, η(n) = init · decay^(n / T).

    So ``decay`` is the whole factor over the horizon T, not the factor of one step: the
    value is ``init`` at count 0 and ``init * decay`` at count T, and goes on decaying beyond.

    Args:
        init: scalar, the value at count 0; may be traced.
        decay: positive scalar, above 1 for growth; may be traced. A traced decay cannot be
            checked: keep it in ``Positive()``.
        horizon: number of steps T, at least 1.

    Returns:
        A schedule.

    Raises:
        TypeError: if ``horizon`` is not an integer.
        ValueError: if ``horizon`` is below 1, a parameter is not a scalar, or ``decay`` is not
            positive.

    Example:
        >>> import rfho
        >>> schedule = rfho.schedules.exponential(1.0, 0.25, 10)
        >>> [float(schedule(count)) for count in (0, 5, 10)]
        [1.0, 0.5, 0.25]
    """
    horizon = _require_horizon("exponential", horizon)
    for name, value in (("init", init), ("decay", decay)):
        _require_scalar("exponential", name, value)
    if not is_traced(decay) and not 0 < np.asarray(decay) < np.inf:
        raise ValueError(
            f"schedules.exponential got decay={decay}, but expected a positive number, the "
            "factor over the whole horizon"
        )

    def schedule(count: ArrayLike) -> Array:
        start, factor, n = _as_floats(init, decay, count)
        return start * factor ** (n / horizon)

    return schedule


def _as_floats(*values: ArrayLike) -> list[Array]:
    """Everything in the type of the parameters, single precision at least.

    The count comes last and has no say in the type. Half precision would miscount from
    step 257 (bfloat16) or 2049 (float16) on.
    """
    dtype = jnp.promote_types(jnp.result_type(*values[:-1], 0.0), jnp.float32)
    return [jnp.asarray(value, dtype) for value in values]


def _require_horizon(schedule: str, horizon: SupportsIndex) -> int:
    if isinstance(horizon, (bool, np.bool_)) or not isinstance(horizon, SupportsIndex):
        raise TypeError(
            f"schedules.{schedule} got horizon={horizon!r} of type {type(horizon).__name__}, but "
            "expected an integer number of steps"
        )
    steps = operator.index(horizon)
    if steps < 1:
        raise ValueError(
            f"schedules.{schedule} got horizon={steps}, but a schedule needs at least 1 step"
        )
    return steps


def _require_scalar(schedule: str, name: str, value: ArrayLike) -> None:
    if np.ndim(value) != 0:
        raise ValueError(
            f"schedules.{schedule} got {name} of shape {np.shape(value)}, but expected a scalar: "
            "use schedules.piecewise for one value for each block of steps"
        )
