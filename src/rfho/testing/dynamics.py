"""The promises of dynamics: a start, a step, an output, and a way back through the step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.dynamics import AbstractDynamics, Keep
from rfho.testing.base import (
    inexact,
    kept,
    need_double_precision,
    normal_like,
)
from rfho.testing.dynamics_promises import SHAPE_PROMISES, STEP_PROMISES
from rfho.testing.dynamics_trial import LADDER, DynamicsTrial, Pulled, Steps


def check_dynamics(
    dynamics: AbstractDynamics, hyper: Any, batch: Any = None, *, tolerance: float = 1e-6
) -> tuple[str, ...]:
    """Checks that dynamics keep every promise of `DYNAMICS_PROMISES` that applies to them.

    Args:
        dynamics: yours.
        hyper: λ, a pytree of float64 arrays or numbers at which a few steps are smooth.
        batch: the data of a step, or None.
        tolerance: of comparisons with finite differences, relative to the larger of 1 and the
            derivative.

    Returns:
        The names of the promises that were kept.

    Raises:
        ConformanceError: some were broken; the message lists all of them.
        RuntimeError: JAX is not set to double precision.

    Example:
        >>> import jax, jax.numpy as jnp, rfho
        >>> from rfho.testing import check_dynamics
        >>> jax.config.update("jax_enable_x64", True)
        >>> decay = rfho.Dynamics(lambda hyper: jnp.ones(2), lambda s, hyper, batch: hyper * s)
        >>> "step_keeps_shapes_and_dtypes" in check_dynamics(decay, 0.5)
        True
    """
    need_double_precision()
    hyper, batch = jax.tree.map(jnp.asarray, (hyper, batch))
    trial, name = DynamicsTrial(dynamics, hyper, batch, tolerance), type(dynamics).__name__
    shaped = kept(SHAPE_PROMISES, trial, name)
    program = eqx.filter_jit(_stepped)
    steps, repeated = program(dynamics, hyper, batch), program(dynamics, hyper, batch)
    return shaped + kept(STEP_PROMISES, trial._replace(steps=steps, repeated=repeated), name)


def _stepped(dynamics: AbstractDynamics, hyper: Any, batch: Any) -> Steps:
    state = jax.tree.map(jnp.asarray, dynamics.init(hyper))
    after = dynamics.step(state, hyper, batch)
    # From the second state on slots are full, and roots and norms are away from zero.
    state, after = after, dynamics.step(after, hyper, batch)
    later = dynamics.step(after, hyper, batch)
    scanned, _ = jax.lax.scan(lambda s, _: (dynamics.step(s, hyper, batch), None), state, length=2)
    adjoint, direction = normal_like(after, 0), normal_like((state, hyper), 1)
    (inside, rest), (hyper_in, hyper_rest) = _parted(state), _parted(hyper)

    def step(inside: Any, hyper_in: Any) -> Any:
        return inexact(
            dynamics.step(eqx.combine(inside, rest), eqx.combine(hyper_in, hyper_rest), batch)
        )

    _, pull = jax.vjp(step, inside, hyper_in)
    _, push = jax.jvp(step, (inside, hyper_in), direction)
    along = normal_like(hyper, 2)

    def moved(h: Any) -> Any:
        """A functional of the parameters after two steps at λ + h d."""
        there = jax.tree.map(lambda leaf, d: leaf + h * d, hyper, along)
        state = dynamics.init(there)
        for _ in range(2):
            state = dynamics.step(state, there, batch)
        leaves = jax.tree.leaves(inexact(dynamics.output(state)))
        return sum((jnp.sum(jnp.sin(leaf)) for leaf in leaves), jnp.zeros(()))

    pulled = {
        keep.value: _pulled(
            dynamics, keep, state, hyper=hyper, batch=batch, after=after, adjoint=adjoint
        )
        for keep in Keep
    }
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), hyper)
    many = jax.vmap(lambda h: dynamics.step(state, h, batch))(twice)
    derivative = jax.jvp(moved, (jnp.zeros(()),), (jnp.ones(()),))[1]
    return Steps(
        state,
        after,
        later,
        scanned,
        dynamics.output(after),
        pull(adjoint),
        push,
        many,
        derivative,
        jax.vmap(moved)(jnp.asarray([*LADDER, *(-h for h in LADDER)])),
        pulled,
    )


def _pulled(
    dynamics: AbstractDynamics,
    keep: Keep,
    state: Any,
    *,
    hyper: Any,
    batch: Any,
    after: Any,
    adjoint: Any,
) -> Pulled:
    way = dynamics.way(keep)
    reached, memory = way.remember(state, hyper, batch)

    def pull(adjoint: Any) -> Any:
        return way.pull_back(adjoint, state, memory, hyper, batch)

    zero = jax.tree.map(jnp.zeros_like, adjoint)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), adjoint)
    return Pulled(
        reached,
        memory,
        None if way.again is None else way.again(state, memory, hyper),
        None if way.invert is None else way.invert(after, hyper, batch),
        pull(adjoint),
        pull(zero),
        jax.vmap(pull)(both),
    )


def _parted(tree: Any) -> tuple[Any, Any]:
    return eqx.partition(tree, eqx.is_inexact_array)
