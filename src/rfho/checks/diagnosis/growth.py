"""How fast the signal grows or fades between the steps of training.

    log ‖α_{t-1}‖ - log ‖α_t‖     per step, going back;     log ‖z_t‖ - log ‖z_{t-1}‖ going forward

A learning rate above 2/L makes a factor above 1 at every step. Where a whole run multiplies the
signal by more than 1/ε, the machine's rounding is as large as everything: then finite differences
decide whether the dynamics merely explode or are chaotic, that is, whether there is a derivative of
any use at all.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case

NOTICED = 1e3
"""Growth over a stretch of steps from which on it is a finding; transients of momentum stay below."""

_A_JUMP = math.log(4)  # what one step may count: the first steps of Adam are no explosion
_SHORTEST = 8  # steps


class Growth(NamedTuple):
    """Growth of the signal per step.

    Attributes:
        per_step: the geometric mean over all steps; below 1 the signal fades.
        float32_horizon: the number of steps after which the signal has changed by a factor 1/ε of
            float32, 2^23: what is further away has drowned in rounding, or drowns everything else.
            None if it would take more than a million.
        first: the first step of the stretch over which the signal grew most.
        last: the last step of it; first - 1 if it never grew.
        factor: its logarithm over that stretch.
        steady: the same if no single step counts for more than a factor 4: one jump is no explosion.
    """

    per_step: float
    float32_horizon: int | None
    first: int
    last: int
    factor: float
    steady: float

    def __str__(self) -> str:
        change = "grows" if self.per_step > 1 else "fades"
        reach = (
            ""
            if self.float32_horizon is None
            else f"; float32 loses it after {self.float32_horizon} steps"
        )
        return f"the signal {change} by a factor {self.per_step:.4g} per step{reach}"


def growth_of(sizes: Array, *, backwards: bool) -> Growth:
    """The growth from log norms of shape (T + 1, leaves), one row per state."""
    with np.errstate(all="ignore"):
        whole = np.logaddexp.reduce(2 * np.asarray(sizes, np.float64), axis=1) / 2
        gains = -np.diff(whole) if backwards else np.diff(whole)
    gains = np.where(np.isfinite(gains), gains, 0.0)
    steady = np.minimum(gains, _A_JUMP)
    first, last = _steepest_stretch(steady)
    mean = float(np.mean(gains))
    reach = math.log(2**23) / abs(mean) if abs(mean) > 2e-5 else None
    return Growth(
        per_step=math.exp(min(mean, 700.0)),
        float32_horizon=None if reach is None else max(1, math.floor(reach)),
        first=first,
        last=last,
        factor=float(np.sum(gains[first : last + 1])),
        steady=float(np.sum(steady[first : last + 1])),
    )


def growth_findings(
    growth: Growth, case: Case, sizes: Array, *, chaotic: Callable[[], bool]
) -> list[Finding]:
    """Explosion or chaos, if either; ``chaotic`` says that finite differences deny the derivative."""
    steps = growth.last - growth.first + 1
    if growth.steady < math.log(NOTICED) or steps < _SHORTEST:
        return []
    leaf = case.paths[int(jnp.argmax(jnp.nan_to_num(sizes[growth.first], nan=-jnp.inf)))]
    rate = math.exp(growth.factor / steps)
    where = Where(leaf, growth.first)
    grew = (
        f"from step {growth.first} to step {growth.last} the signal grows by a factor {rate:.3g} per step, "
        f"e^{growth.factor:.0f} in all, most of it in {leaf}"
    )
    if growth.factor > math.log(1 / case.epsilon) and chaotic():
        message = (
            f"{grew}, which is more than 1/ε, and finite differences do not confirm the derivative: training is "
            "chaotic, and no method that differentiates it gives a useful direction. Lower the rate, shorten "
            "the horizon, or take rfho.PersistentEvolutionHyperGradient"
        )
        return [Finding(Kind.CHAOS, where, message, Severity.ERROR)]
    message = (
        f"{grew}: the learning rate is above 2/L there, or the dynamics expand. Lower the rate, keep it in a "
        "domain such as rfho.Box(0, high), or shorten the horizon"
    )
    return [Finding(Kind.EXPLOSION, where, message)]


def _steepest_stretch(gains: np.ndarray) -> tuple[int, int]:
    """First and last index of the contiguous stretch with the largest sum; (0, -1) if none is positive."""
    best, bounds, here, begin = 0.0, (0, -1), 0.0, 0
    for t, gain in enumerate(gains.tolist()):
        if here <= 0:
            here, begin = 0.0, t
        here += gain
        if here > best:
            best, bounds = here, (begin, t)
    return bounds
