"""The promises of a method: each is a function whose name is the sentence."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho import Fixed, Reals, Tuner
from rfho.hyper_gradients import Estimate
from rfho.testing.base import (
    applies,
    require,
    require_alike,
    require_close,
    require_equal,
    require_finite,
)
from rfho.testing.method_exactness import (
    each_hyperparameter_follows_its_own_objective,
    explicit_dependence_is_followed,
    initial_hyperparameters_are_followed,
    nested_hyperparameters_are_followed,
    penalties_in_the_loss_are_followed,
    settings_of_the_dynamics_are_followed,
    several_objectives_have_several_values,
    value_belongs_to_the_params,
    value_is_that_of_training,
)
from rfho.testing.method_trial import MethodTrial


def carry_is_made_of_arrays(trial: MethodTrial) -> None:
    """So that it can be compiled, saved and stacked."""
    odd = [leaf for leaf in jax.tree.leaves(trial.carries) if not eqx.is_array(leaf)]
    require(not odd, f"the carry holds {odd}, but it must be arrays alone")


def carry_keeps_its_structure(trial: MethodTrial) -> None:
    """All carries are alike."""
    for carry in trial.carries[1:]:
        require_alike(carry, trial.carries[0], what="carry")


def second_estimate_does_not_retrace(trial: MethodTrial) -> None:
    """An outer loop compiles once."""
    before, after = trial.traced
    require(before == after, "the second estimate was compiled again")


def estimate_is_an_estimate(trial: MethodTrial) -> None:
    """It has value, hypergradient and aux."""
    found = trial.estimates[0]
    require(isinstance(found, Estimate), f"estimate returned a {type(found).__name__}")


def estimate_is_pure(trial: MethodTrial) -> None:
    """The same problem, λ and carry give the same bits."""
    first, _, again = trial.estimates
    require_equal(again, first, what="estimate")


def hypergradient_is_like_hyper(trial: MethodTrial) -> None:
    """Structure, shapes and dtypes are those of λ."""
    for estimate in trial.estimates:
        require_alike(estimate.hypergradient, trial.hyper, what="hypergradient")


def hypergradient_is_finite(trial: MethodTrial) -> None:
    """The problems are smooth."""
    for estimate in trial.estimates:
        require_finite(estimate.hypergradient, what="hypergradient")


def value_is_a_finite_scalar(trial: MethodTrial) -> None:
    """One objective has one number."""
    for estimate in trial.estimates:
        require_alike(estimate.value, jnp.zeros(()), what="value")
        require_finite(estimate.value, what="value")


def params_are_those_of_the_dynamics(trial: MethodTrial) -> None:
    """``aux.params`` is what objectives see."""
    state = eqx.filter_eval_shape(trial.problem.init, trial.hyper)
    expected = eqx.filter_eval_shape(trial.problem.dynamics.output, state)
    for estimate in trial.estimates:
        require_alike(estimate.aux.params, expected, what="aux.params")
        require_finite(estimate.aux.params, what="aux.params")


def stats_are_named_scalars(trial: MethodTrial) -> None:
    """``aux.stats`` can be written into a report."""
    stats = trial.estimates[0].aux.stats
    require(isinstance(stats, dict), f"aux.stats is a {type(stats).__name__}, but must be a dict")
    for name, number in stats.items():
        require(isinstance(name, str), f"aux.stats has the key {name!r}, but keys are strings")
        require(jnp.shape(number) == (), f"aux.stats[{name!r}] has shape {jnp.shape(number)}")
        require(not jnp.isnan(number), f"aux.stats[{name!r}] is NaN")


def stats_keep_their_names(trial: MethodTrial) -> None:
    """Reports of a run have the same columns."""
    first, second, _ = (set(estimate.aux.stats) for estimate in trial.estimates)
    require(first == second, f"aux.stats first has {first}, then {second}")


def complaint_is_none_where_all_is_well(trial: MethodTrial) -> None:
    """No error is raised about a good estimate."""
    stats = {name: float(x) for name, x in trial.estimates[0].aux.stats.items()}
    complaint = trial.method.complaint(stats)
    require(complaint is None, f"complains: {complaint}")


def limit_is_none_or_an_int(trial: MethodTrial) -> None:
    """How many estimates a run gives is known beforehand."""
    limit = trial.method.limit(trial.problem)
    fine = limit is None or (isinstance(limit, int) and limit >= 1)
    require(fine, f"limit is {limit!r} at horizon {trial.problem.horizon}")


def conclusion_evaluates_its_params(trial: MethodTrial) -> None:
    """The value with which a run ends is that of its parameters."""
    value, params = eqx.filter_jit(trial.method.conclude)(
        trial.problem, trial.hyper, trial.carries[1]
    )
    expected = trial.problem.evaluate(params, trial.hyper)
    require_close(value, expected, 1e-9, what="value of the conclusion")
    require_alike(params, trial.estimates[0].aux.params, what="params of the conclusion")


def works_under_vmap_over_hyper(trial: MethodTrial) -> None:
    """Several λ at once are one after another."""

    def one(hyper: Any) -> Estimate:
        return trial.method.estimate(trial.problem, hyper, trial.method.init(trial.problem, hyper))[
            0
        ]

    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.9 * leaf]), trial.hyper)
    found = jax.tree.map(lambda leaf: leaf[0], eqx.filter_jit(jax.vmap(one))(twice))
    expected = trial.estimates[0]
    require_close(
        (found.value, found.hypergradient),
        (expected.value, expected.hypergradient),
        1e-7,
        what="estimate under vmap",
    )


def single_precision_stays_single(trial: MethodTrial) -> None:
    """A float32 problem has a float32 hypergradient, near that of float64."""
    problem, hyper = trial.family.single()
    start = eqx.filter_jit(trial.method.init)(problem, hyper)
    estimate, after = trial.compiled(problem, hyper, start)
    require_alike(after, start, what="carry of a float32 problem")
    require_alike(estimate.hypergradient, hyper, what="hypergradient of a float32 problem")
    if trial.tolerance is not None:
        doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), estimate.hypergradient)
        expected = trial.estimates[0].hypergradient
        require_close(doubled, expected, 1e-3, what="hypergradient of a float32 problem")


def fixed_leaves_stay_and_free_ones_move(trial: MethodTrial) -> None:
    """In an outer loop, a leaf that is Fixed keeps its bits; the run can be concluded."""
    domain = {name: Reals() for name in trial.hyper} | {"penalty": Fixed()}
    if "start" in trial.hyper and not trial.method.reaches_start(trial.problem):
        domain["start"] = Fixed()  # what a method does not go back to is refused in an outer loop
    tuner = Tuner(trial.method, domain=domain)
    state = tuner.init(trial.problem, trial.hyper)
    state, estimate = next(tuner.steps(trial.problem, state))
    fixed = state.hyper["penalty"]
    require_equal(fixed, trial.hyper["penalty"], what="Fixed leaf")
    moved = any(
        bool(jnp.any(state.hyper[name] != trial.hyper[name]))
        for name in trial.hyper
        if name != "penalty"
    )
    require(moved, "no free leaf was moved by a step of the outer optimiser")
    require(estimate.hypergradient["penalty"] is None, "a Fixed leaf has a hypergradient")
    require_finite(tuner.conclude(trial.problem, state), what="conclusion")


def one_step_and_a_bare_number_are_enough(trial: MethodTrial) -> None:
    """Horizon 1, and λ without any container."""
    estimate, _ = _smallest(trial, eqx.filter_jit)
    require_alike(estimate.hypergradient, jnp.zeros(()), what="hypergradient")
    require_finite(estimate.hypergradient, what="hypergradient")


def eager_equals_compiled(trial: MethodTrial) -> None:
    """Without `jax.jit` the estimate is the same."""
    eager, compiled = _smallest(trial, lambda function: function), _smallest(trial, eqx.filter_jit)
    require_close(eager[0].hypergradient, compiled[0].hypergradient, 1e-9, what="hypergradient")


def _smallest(trial: MethodTrial, how: Callable[..., Any]) -> tuple[Estimate, Any]:
    problem, hyper = trial.family.smallest()
    applies(trial.method.limit(problem) != 0)
    start = how(trial.method.init)(problem, hyper)
    return how(trial.method.estimate)(problem, hyper, start)


def bad_arguments_are_refused(trial: MethodTrial) -> None:
    """With a TypeError or a ValueError that says something."""
    applies(bool(trial.misuse))
    for number, make in enumerate(trial.misuse):
        try:
            made = make()
        except (TypeError, ValueError) as error:
            require(str(error), f"misuse {number} is refused without a word")
        else:
            require(False, f"misuse {number} made {made!r}, but a ValueError was expected")


METHOD_PROMISES = (
    carry_is_made_of_arrays,
    carry_keeps_its_structure,
    second_estimate_does_not_retrace,
    estimate_is_an_estimate,
    estimate_is_pure,
    hypergradient_is_like_hyper,
    hypergradient_is_finite,
    value_is_a_finite_scalar,
    params_are_those_of_the_dynamics,
    stats_are_named_scalars,
    stats_keep_their_names,
    complaint_is_none_where_all_is_well,
    limit_is_none_or_an_int,
    conclusion_evaluates_its_params,
    works_under_vmap_over_hyper,
    single_precision_stays_single,
    fixed_leaves_stay_and_free_ones_move,
    one_step_and_a_bare_number_are_enough,
    eager_equals_compiled,
    value_is_that_of_training,
    value_belongs_to_the_params,
    settings_of_the_dynamics_are_followed,
    penalties_in_the_loss_are_followed,
    nested_hyperparameters_are_followed,
    initial_hyperparameters_are_followed,
    explicit_dependence_is_followed,
    several_objectives_have_several_values,
    each_hyperparameter_follows_its_own_objective,
    bad_arguments_are_refused,
)
"""What every method promises, in the order in which it is tried."""
