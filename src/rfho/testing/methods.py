"""The promises of a method: structures, exactness, purity, and its place in an outer loop."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho import AbstractHyperGradient, Estimate, Fixed, Problem, Reals, Tuner
from rfho.testing.base import (
    applies,
    kept,
    need_double_precision,
    require,
    require_alike,
    require_close,
    require_equal,
    require_finite,
)
from rfho.testing.family import SETTINGS, Family, Train, gradient_descent


class MethodTrial(NamedTuple):
    """A method under test, and what it gave on the problems of a family.

    Attributes:
        method: under test.
        family: the problems.
        problem, hyper: the main one, and where it was tried.
        tolerance: of the method's hypergradient, None if it is not exact.
        carries: before the first estimate, after the first and after the second.
        estimates: the first, the second, and the first once more.
        traced: how often `estimate` was traced before the second estimate and after it.
        compiled: `estimate` of the method.
        misuse: what must be refused.
    """

    method: AbstractHyperGradient
    family: Family
    problem: Problem
    hyper: Any
    tolerance: float | None
    carries: tuple[Any, ...]
    estimates: tuple[Estimate, ...]
    traced: tuple[int, int]
    compiled: Any
    misuse: tuple[Callable[[], object], ...]


def check_method(
    method: AbstractHyperGradient,
    *,
    tolerance: float | None = 1e-6,
    train: Train = gradient_descent,
    settings: dict[str, float] = SETTINGS,
    horizon: int = 4,
    learn_start: bool = True,
    misuse: Iterable[Callable[[], object]] = (),
) -> tuple[str, ...]:
    """Checks that a method keeps every promise of `METHOD_PROMISES` that applies to it.

    The problems are least squares with three parameters on the whole batch, strongly convex, with
    hyperparameters that reach the objective by every way there is: through the initial parameters,
    the dynamics, the loss, and the objective itself.

    Args:
        method: yours.
        tolerance: how far its hypergradient may be from that of finite differences, relative to the
            larger of 1 and its entries; None for a biased or random method, of which exactness is
            not asked.
        train: makes dynamics of ``(loss, init, settings)``, where ``settings(hyper)`` gives a
            dictionary; momentum descent by default.
        settings: the names and values in that dictionary: hyperparameters of the dynamics.
        horizon: T.
        learn_start: whether the initial parameters are a hyperparameter too; not for a method that
            refuses those, as implicit ones must.
        misuse: functions without arguments that make the method with bad arguments: each must raise
            a TypeError or a ValueError.

    Returns:
        The names of the promises that were kept.

    Raises:
        ConformanceError: some were broken; the message lists all of them.
        RuntimeError: JAX is not set to double precision.

    Example:
        >>> import jax, rfho
        >>> from rfho.testing import check_method
        >>> jax.config.update("jax_enable_x64", True)
        >>> kept = check_method(rfho.hyper_gradients.ForwardHyperGradient())
        >>> "explicit_dependence_is_followed" in kept
        True
    """
    need_double_precision()
    family = Family(train, settings, horizon, learn_start)
    problem, hyper = family.problem(), family.hyper()
    count = _Count()
    compiled = eqx.filter_jit(count.counted(method.estimate))
    start = eqx.filter_jit(method.init)(problem, hyper)
    first, after = compiled(problem, hyper, start)
    before_second = count.traces
    second, last = compiled(problem, hyper, after)
    trial = MethodTrial(
        method,
        family,
        problem,
        hyper,
        tolerance,
        carries=(start, after, last),
        estimates=(first, second, compiled(problem, hyper, start)[0]),
        traced=(before_second, count.traces),
        compiled=compiled,
        misuse=tuple(misuse),
    )
    return kept(METHOD_PROMISES, trial, type(method).__name__)


class _Count:
    """Counts how often a function is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        return counting


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


def value_is_that_of_training(trial: MethodTrial) -> None:
    """f(λ) is the objective after plain training."""
    applies(trial.tolerance is not None)
    found, expected = (
        trial.estimates[0].value,
        trial.family.reference(trial.problem, trial.hyper)[0],
    )
    require_close(found, expected, 1e-9, what="value")


def value_belongs_to_the_params(trial: MethodTrial) -> None:
    """The value is that of ``aux.params``."""
    applies(trial.tolerance is not None)
    estimate = trial.estimates[0]
    expected = trial.problem.evaluate(estimate.aux.params, trial.hyper)
    require_close(estimate.value, expected, 1e-9, what="value")


def settings_of_the_dynamics_are_followed(trial: MethodTrial) -> None:
    """Rate, momentum and their like have the hypergradient of finite differences."""
    applies(bool(trial.family.settings))
    for name in trial.family.settings:
        _follows(trial, name)


def penalties_in_the_loss_are_followed(trial: MethodTrial) -> None:
    """A vector that reaches the inner loss."""
    _follows(trial, "penalty")


def nested_hyperparameters_are_followed(trial: MethodTrial) -> None:
    """Containers inside containers."""
    _follows(trial, "nested")


def initial_hyperparameters_are_followed(trial: MethodTrial) -> None:
    """s_0 = Φ_0(λ)."""
    applies(trial.family.learn_start)
    _follows(trial, "start")


def explicit_dependence_is_followed(trial: MethodTrial) -> None:
    """E(w, λ) may see λ itself."""
    _follows(trial, "direct")


def _follows(trial: MethodTrial, name: str) -> None:
    tolerance = _exact(trial)
    found = trial.estimates[0].hypergradient[name]
    expected = trial.family.reference(trial.problem, trial.hyper)[1][name]
    require_close(found, expected, tolerance, what=f'hypergradient["{name}"]')


def several_objectives_have_several_values(trial: MethodTrial) -> None:
    """The value has the structure of the objective."""
    problem, estimate = _several(trial)
    expected = problem.evaluate(estimate.aux.params, trial.hyper)
    require_alike(estimate.value, expected, what="value")
    require_finite(estimate.value, what="value")


def each_hyperparameter_follows_its_own_objective(trial: MethodTrial) -> None:
    """Of several objectives, the one at its place in the tree."""
    tolerance = _exact(trial)
    _, estimate = _several(trial)
    for objective, names in trial.family.own_objectives().items():
        problem = trial.family.problem(objective)
        expected = trial.family.reference(problem, trial.hyper)[1]
        for name in names:
            what = f'hypergradient["{name}"]'
            require_close(estimate.hypergradient[name], expected[name], tolerance, what=what)


def _several(trial: MethodTrial) -> tuple[Problem, Estimate]:
    problem = trial.family.several()
    start = eqx.filter_jit(trial.method.init)(problem, trial.hyper)
    return problem, trial.compiled(problem, trial.hyper, start)[0]


def _exact(trial: MethodTrial) -> float:
    applies(trial.tolerance is not None)
    return math.inf if trial.tolerance is None else trial.tolerance


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
