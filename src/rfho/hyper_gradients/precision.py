r"""In how many digits a method trains, remembers and derives, and how far that moves its hypergradient.

.. math:: \|g - \nabla f\| \le \|g - h\| + \|h - \nabla f\| \le 2 \|g - h\|

for h in more digits than g, as long as h is itself no further from ∇f than g is from h.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.dynamics.in_precision import InPrecision, floats_as, narrowed
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate
from rfho.memory import (
    AbstractCheckpoint,
    Exact,
    HalfPrecision,
    HostMemory,
    Recompute,
    Replay,
    StoreAll,
)
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree, Scalar

_FACTOR = 2.0
_ALLOWED = {
    "compute": ("bfloat16", "float16"),
    "tape": ("bfloat16",),
    "derivative": ("bfloat16", "float32", "float64"),
}

SIGNS = "signs_in_doubt"
"""The statistic that counts entries of a hypergradient whose sign is in doubt."""


class Precision(eqx.Module):
    """Where a method computes in which precision; its estimate says how far that moves it.

    Parameters and slots of the state keep their dtype: they are the master weights.

    Args:
        compute: ``bfloat16`` or ``float16``: in what the inner loss is given parameters and batch on the way
            forward; for `Descent` and `HeavyBall`. Objectives see the master weights.
        tape: ``bfloat16``: what is remembered of a step beside its state, see `rfho.memory.HalfPrecision`. Under
            `StoreAll`, `Recompute` and `Replay`.
        derivative: in what steps are pulled back and cotangents added up, at the states that training has come
            to: ``float32`` or ``float64``; by default the dtype of the master weights. With ``bfloat16`` the loss is
            given parameters and batch in it on the way back, and sums stay in the dtype of the master weights.
        probe: how many steps, from the first, the rounding is measured on, and taken to grow as their number
            does: an estimate, not a bound. By default all T, and nothing is taken to grow.

    Raises:
        ValueError: nothing is named, or a dtype is none of those above.

    Cost:
        In time one more hypergradient, under `Recompute`; with ``probe`` two of so many steps.

    Aux:
        ``stats["rounding"]``, which is the estimate's ``error``: twice the difference, and what arithmetic leaves of
        the finer one. ``stats["signs_in_doubt"]``: how many entries of the hypergradient are at most twice
        their own difference. `rfho.hyper_gradient` and `rfho.tune` warn of them.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> from rfho.hyper_gradients import Precision, ReverseHyperGradient
        >>> loss = lambda w, hyper, batch: jnp.sum((jnp.sin(w) - 1) ** 2)
        >>> dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.ones(3) / 3)
        >>> problem = rfho.Problem(dynamics, loss, horizon=10)
        >>> half = ReverseHyperGradient(
        ...     precision=Precision(compute=jnp.bfloat16, tape=jnp.bfloat16)
        ... )
        >>> estimate = rfho.hyper_gradient(problem, {"lr": 0.1}, half)
        >>> 0 < float(estimate.error / abs(estimate.hypergradient["lr"])) < 0.1
        True
    """

    compute: DTypeLike | None = eqx.field(static=True, default=None)
    tape: DTypeLike | None = eqx.field(static=True, default=None)
    derivative: DTypeLike | None = eqx.field(static=True, default=None)
    probe: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        named = {name: getattr(self, name) for name in _ALLOWED if getattr(self, name) is not None}
        if not named:
            raise ValueError(
                "Precision got no dtype, but it is there to say one: write compute=jnp.bfloat16, "
                "tape=jnp.bfloat16 or derivative=jnp.float64"
            )
        for name, dtype in named.items():
            if jnp.dtype(dtype).name not in _ALLOWED[name]:
                raise ValueError(
                    f"Precision got {name}={jnp.dtype(dtype).name}, but it must be {' or '.join(_ALLOWED[name])}"
                )
        if self.probe is not None:
            positive_int(self.probe, "probe", type(self).__name__)

    def rounded(self, problem: AbstractMoment) -> AbstractMoment:
        """The problem as it is trained and pulled back."""
        whole, low = problem.dynamics, self._is_low()
        taken = whole if self.compute is None else narrowed(whole, self.compute)
        pulled = narrowed(whole, jnp.bfloat16) if low else whole
        adjoints = None if low else self._known()
        return problem.under(InPrecision(taken, pulled, adjoints=adjoints))

    def finer(self, problem: AbstractMoment) -> AbstractMoment:
        """The problem as it would be without: all of it in what the derivative is taken in."""
        dtype = None if self._is_low() else self._known()
        whole = problem.dynamics
        again = problem.under(InPrecision(whole, whole, states=dtype, adjoints=dtype))
        return again if again.start is None else again.going_on(floats_as(again.start, dtype))

    def _is_low(self) -> bool:
        return self.derivative is not None and jnp.dtype(self.derivative) == jnp.bfloat16

    def _known(self) -> DTypeLike | None:
        if self.derivative is None:
            return None
        if jax.dtypes.canonicalize_dtype(self.derivative) != jnp.dtype(self.derivative):
            raise ValueError(
                "Precision got derivative=float64, which JAX has not been told to allow: call "
                'jax.config.update("jax_enable_x64", True) first'
            )
        return self.derivative


def check_precision(method: Any) -> None:
    """Refuses what is no `Precision`, and a policy that cannot keep its tape.

    Raises:
        TypeError, ValueError: as said.
    """
    how = method.precision
    if how is None:
        return
    if not isinstance(how, Precision):
        raise TypeError(
            f"{type(method).__name__} got precision={how!r}, but it must be a rfho.hyper_gradients.Precision"
        )
    if how.tape is not None:
        _on_tape(method.checkpoint)


def as_rounded(method: Any, problem: AbstractMoment) -> tuple[Any, AbstractMoment]:
    """The method without its `Precision`, and the problem with it; both as they are where there is none."""
    how = method.precision
    if how is None:
        return method, problem
    policy = method.checkpoint if how.tape is None else _on_tape(method.checkpoint)
    return dataclasses.replace(method, checkpoint=policy, precision=None), how.rounded(problem)


def measured(
    method: Any,
    problem: AbstractMoment,
    hyper: Hyper,
    carry: PyTree,
    *,
    finer: AbstractHyperGradient,
) -> tuple[Estimate, PyTree]:
    """The estimate of a method in its `Precision`, which says how far that has moved it.

    Args:
        method: with ``checkpoint`` and ``precision``.
        problem: in whole precision.
        hyper: the learned leaves of λ.
        carry: of the method.
        finer: the same method without a precision.
    """
    how: Precision = method.precision
    plain, rounded = as_rounded(method, problem)
    estimate, carry = plain.estimate(rounded, hyper, carry)
    steps = min(how.probe or problem.horizon, problem.horizon)
    coarse, again = estimate, how.finer(problem)
    if steps < problem.horizon:
        again = again.under(again.dynamics, steps)
        rounded = rounded.under(rounded.dynamics, steps)
        coarse, _ = plain.estimate(rounded, hyper, None)
    fine, _ = finer.estimate(again, hyper, None)
    gaps = coarse.hypergradient, fine.hypergradient, fine.aux.stats["rounding"]
    return _said(problem, hyper, estimate, gaps, problem.horizon / steps), carry


def measured_cost(method: Any, parts: Parts, finer: Any) -> Forecast:
    """Of an estimate with its measurement: by steps, one after the other, as if all were in one precision."""
    how: Precision = method.precision
    plain, _ = as_rounded(method, parts.problem)
    once, again = plain.cost(parts), finer.cost(parts)
    share = min(how.probe or parts.problem.horizon, parts.problem.horizon) / parts.problem.horizon
    time = once.time + share * (again.time + (once.time if share < 1 else 0))
    memory = max(once.memory, again.memory)
    return once._replace(time=time, memory=memory, host=max(once.host, again.host))


def in_doubt(stats: dict[str, Any], hypergradient: Hyper) -> str | None:
    """What to say of an estimate, entries of which may have the wrong sign by rounding; None if there is none."""
    count = int(stats.get(SIGNS, 0))
    if not count:
        return None
    return (
        f"rounding may have turned the sign of {count} of the {tree.size(hypergradient)} entries of the "
        "hypergradient: compute in more digits (precision=), or do not learn them; rfho.checks.rounding names "
        "the leaves"
    )


@eqx.filter_jit
def _said(
    problem: AbstractMoment,
    hyper: Hyper,
    estimate: Estimate,
    probed: tuple[Hyper, Hyper, Scalar],
    scale: float,
) -> Estimate:
    """The estimate in the dtypes that it would have without, with its error and its signs."""
    coarse, fine, left = probed
    # As it is given back: in the dtypes of λ, that is.
    found, coarse = (optax.tree.cast_like(g, hyper) for g in (estimate.hypergradient, coarse))
    # A difference on fewer steps stands for the same part of the whole, as often as they go into it.
    ratio = scale * _quotient(tree.norm(found), tree.norm(fine)) if scale > 1 else 1.0
    gaps = jax.tree.map(lambda g, h: ratio * jnp.abs(g - h), coarse, fine)
    doubtful = jax.tree.map(
        lambda g, gap: jnp.sum((jnp.abs(g) <= _FACTOR * gap) & (gap > 0)), found, gaps
    )
    stats = estimate.aux.stats | {
        "rounding": _FACTOR * tree.norm(gaps) + ratio * left,
        SIGNS: sum(jax.tree.leaves(doubtful)),
    }
    value = jax.eval_shape(
        lambda: problem.evaluate(problem.dynamics.output(problem.init(hyper)), hyper)
    )
    value = optax.tree.cast_like(estimate.value, value)
    return Estimate(value, found, estimate.aux._replace(stats=stats))


def _quotient(a: Scalar, b: Scalar) -> Scalar:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 1)


def _on_tape(policy: AbstractCheckpoint) -> AbstractCheckpoint:
    if not isinstance(policy, StoreAll | Recompute | Replay):
        raise ValueError(
            f"precision= got a tape in bfloat16 with {tree.as_code(policy)}, whose rows are states alone: take "
            "StoreAll, Recompute or Replay, or leave tape= out"
        )
    encoding = policy.encoding
    if isinstance(encoding, HostMemory):
        half = HostMemory(HalfPrecision())
    elif isinstance(encoding, Exact | HalfPrecision):
        half = HalfPrecision()
    else:
        raise ValueError(
            f"precision= got a tape in bfloat16 with {tree.as_code(encoding)}, which says its own form: leave one "
            "of them out"
        )
    return dataclasses.replace(policy, encoding=half)
