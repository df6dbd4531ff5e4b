"""What a method promises of its values: they are those of training, and every dependence is followed."""

import math

import equinox as eqx

from rfho import Problem
from rfho.hyper_gradients import Estimate
from rfho.testing.base import (
    applies,
    require_alike,
    require_close,
    require_finite,
)
from rfho.testing.method_trial import MethodTrial


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
