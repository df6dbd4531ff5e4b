"""The promises of a dynamics: each is a function whose name is the sentence."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho.checks import derivative
from rfho.dynamics import Keep
from rfho.testing.base import (
    applies,
    dot,
    inexact,
    normal_like,
    require,
    require_alike,
    require_close,
    require_equal,
    require_finite,
)
from rfho.testing.dynamics_trial import LADDER, DynamicsTrial, Pulled


def init_gives_something_to_train(trial: DynamicsTrial) -> None:
    """The state has floating-point leaves, and they are finite."""
    state = trial.dynamics.init(trial.hyper)
    require(jax.tree.leaves(inexact(jax.tree.map(jnp.asarray, state))), "no leaf is inexact")
    require_finite(state, what="state")


def init_is_the_same_twice(trial: DynamicsTrial) -> None:
    """Randomness comes from λ or not at all."""
    first, second = trial.dynamics.init(trial.hyper), trial.dynamics.init(trial.hyper)
    require_equal(first, second, what="initial state")


def step_keeps_the_structure(trial: DynamicsTrial) -> None:
    """All states are the same pytree."""
    before, after = map(jax.tree.structure, _shapes(trial))
    require(before == after, f"a step turns {before} into {after}")


def step_keeps_shapes_and_dtypes(trial: DynamicsTrial) -> None:
    """So that steps can be scanned."""
    before, after = _shapes(trial)
    require_alike(after, before, what="state after a step")


def _shapes(trial: DynamicsTrial) -> tuple[Any, Any]:
    state = jax.tree.map(jnp.asarray, trial.dynamics.init(trial.hyper))
    after = eqx.filter_eval_shape(trial.dynamics.step, state, trial.hyper, trial.batch)
    return eqx.filter_eval_shape(lambda: state), after


def step_is_finite(trial: DynamicsTrial) -> None:
    """Three steps lead nowhere strange."""
    require_finite(trial.steps.later, what="state after three steps")


def step_is_pure(trial: DynamicsTrial) -> None:
    """The same state, λ and batch give the same bits."""
    require_equal(trial.steps.after, trial.repeated.after, what="state after a step")


def step_is_the_same_uncompiled(trial: DynamicsTrial) -> None:
    """`jax.jit` changes nothing but rounding."""
    found = trial.dynamics.step(trial.steps.state, trial.hyper, trial.batch)
    require_close(inexact(found), inexact(trial.steps.after), 1e-9, what="state without jit")


def step_can_be_scanned(trial: DynamicsTrial) -> None:
    """Two steps in a loop are two steps."""
    found, expected = inexact(trial.steps.scanned), inexact(trial.steps.later)
    require_close(found, expected, 1e-9, what="state after a loop")


def step_works_under_vmap_over_hyper(trial: DynamicsTrial) -> None:
    """Several λ at once are one after another."""
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], trial.steps.many)
        require_close(inexact(one), inexact(trial.steps.after), 1e-9, what="state under vmap")


def output_is_made_of_finite_floats(trial: DynamicsTrial) -> None:
    """Objectives see parameters they can be differentiated by."""
    require(jax.tree.leaves(inexact(trial.steps.params)), "the output has no inexact leaf")
    require_finite(trial.steps.params, what="output")


def output_depends_on_the_state_alone(trial: DynamicsTrial) -> None:
    """The same state gives the same output."""
    found = trial.dynamics.output(trial.steps.after)
    require_close(inexact(found), inexact(trial.steps.params), 1e-12, what="output")


def forward_and_reverse_mode_are_transposed(trial: DynamicsTrial) -> None:
    """⟨α, J v⟩ = ⟨Jᵀ α, v⟩ over the state and λ."""
    adjoint = normal_like(trial.steps.after, 0)
    direction = normal_like((trial.steps.state, trial.hyper), 1)
    forward, reverse = dot(adjoint, trial.steps.jvp), dot(trial.steps.vjp, direction)
    require_close(jnp.asarray(forward), jnp.asarray(reverse), 1e-8, what="forward mode")


def derivatives_are_finite(trial: DynamicsTrial) -> None:
    """No square root or norm is taken at zero."""
    require_finite((trial.steps.vjp, trial.steps.jvp), what="derivative of a step")


def derivative_by_hyper_is_that_of_differences(trial: DynamicsTrial) -> None:
    """Start and two steps, along a random direction of λ."""
    values = dict(zip((*LADDER, *(-h for h in LADDER)), trial.steps.around.tolist(), strict=True))
    expected = derivative(values.__getitem__, float(jnp.finfo(float).eps), LADDER[0]).value
    what = "derivative of two steps by hyper"
    require_close(trial.steps.slope, jnp.asarray(expected), trial.tolerance, what=what)


def _way(trial: DynamicsTrial, keep: Keep) -> Pulled:
    return trial.steps.pulled[keep.value]


def _remembers(trial: DynamicsTrial, keep: Keep) -> None:
    found, expected = inexact(_way(trial, keep).after), inexact(trial.steps.after)
    require_close(found, expected, 1e-12, what=f"state that remember gives under {keep}")


def _pulls_back(trial: DynamicsTrial, keep: Keep) -> None:
    found, expected = _way(trial, keep).cotangents, trial.steps.vjp
    require_close(tuple(found), tuple(expected), 1e-9, what=f"cotangent under {keep}")


def remember_takes_the_step_keeping_states(trial: DynamicsTrial) -> None:
    """Under `Keep.STATES` the next state is that of `step`."""
    _remembers(trial, Keep.STATES)


def remember_takes_the_step_keeping_gradients(trial: DynamicsTrial) -> None:
    """Under `Keep.GRADIENTS` the next state is that of `step`."""
    _remembers(trial, Keep.GRADIENTS)


def remember_takes_the_step_keeping_residuals(trial: DynamicsTrial) -> None:
    """Under `Keep.RESIDUALS` the next state is that of `step`."""
    _remembers(trial, Keep.RESIDUALS)


def pull_back_is_the_vjp_keeping_states(trial: DynamicsTrial) -> None:
    """Under `Keep.STATES` cotangents are those of the vjp of `step`."""
    _pulls_back(trial, Keep.STATES)


def pull_back_is_the_vjp_keeping_gradients(trial: DynamicsTrial) -> None:
    """Under `Keep.GRADIENTS` cotangents are those of the vjp of `step`."""
    _pulls_back(trial, Keep.GRADIENTS)


def pull_back_is_the_vjp_keeping_residuals(trial: DynamicsTrial) -> None:
    """Under `Keep.RESIDUALS` cotangents are those of the vjp of `step`."""
    _pulls_back(trial, Keep.RESIDUALS)


def pull_back_of_zero_is_zero(trial: DynamicsTrial) -> None:
    """Cotangents are linear in the adjoint."""
    for name, way in trial.steps.pulled.items():
        zero = jax.tree.map(jnp.zeros_like, way.cotangents)
        require_close(way.of_zero, zero, 1e-12, what=f"cotangent of zero keeping {name}")


def pull_back_takes_several_adjoints(trial: DynamicsTrial) -> None:
    """Several objectives are pulled back under vmap."""
    for name, way in trial.steps.pulled.items():
        signed = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), way.cotangents)
        require_close(way.of_both, signed, 1e-9, what=f"cotangents keeping {name}")


def memory_is_made_of_arrays(trial: DynamicsTrial) -> None:
    """What is kept of each step can be stacked over the run."""
    for name, way in trial.steps.pulled.items():
        odd = [leaf for leaf in jax.tree.leaves(way.memory) if not eqx.is_array(leaf)]
        require(not odd, f"keeping {name}, memory holds {odd}, but it must be arrays alone")


def again_takes_the_step(trial: DynamicsTrial) -> None:
    """A step whose gradient is known, taken again, ends where it ended."""
    found = [way.again for way in trial.steps.pulled.values() if way.again is not None]
    applies(bool(found))
    for state in found:
        require_close(inexact(state), inexact(trial.steps.after), 1e-12, what="state taken again")


def invert_undoes_the_step(trial: DynamicsTrial) -> None:
    """The state before the step comes back, with the memory of it."""
    found = [way for way in trial.steps.pulled.values() if way.before is not None]
    applies(bool(found))
    for way in found:
        state, memory = way.before
        require_close(inexact(state), inexact(trial.steps.state), 1e-8, what="state undone")
        require_close(inexact(memory), inexact(way.memory), 1e-8, what="memory of a step undone")


SHAPE_PROMISES = (
    init_gives_something_to_train,
    init_is_the_same_twice,
    step_keeps_the_structure,
    step_keeps_shapes_and_dtypes,
)
"""Without these nothing else can be tried."""

STEP_PROMISES = (
    step_is_finite,
    step_is_pure,
    step_is_the_same_uncompiled,
    step_can_be_scanned,
    step_works_under_vmap_over_hyper,
    output_is_made_of_finite_floats,
    output_depends_on_the_state_alone,
    forward_and_reverse_mode_are_transposed,
    derivatives_are_finite,
    derivative_by_hyper_is_that_of_differences,
    remember_takes_the_step_keeping_states,
    remember_takes_the_step_keeping_gradients,
    remember_takes_the_step_keeping_residuals,
    pull_back_is_the_vjp_keeping_states,
    pull_back_is_the_vjp_keeping_gradients,
    pull_back_is_the_vjp_keeping_residuals,
    pull_back_of_zero_is_zero,
    pull_back_takes_several_adjoints,
    memory_is_made_of_arrays,
    again_takes_the_step,
    invert_undoes_the_step,
)
"""What is tried in one compiled program."""

DYNAMICS_PROMISES = SHAPE_PROMISES + STEP_PROMISES
"""What all dynamics promise, in the order in which it is tried."""
