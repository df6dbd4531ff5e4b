"""What `best` is chosen by where it is not the objective itself: the objective on data that nobody descends.

Many hyperparameters fit one validation set, one order of minibatches, one start: f goes on falling when the
model gets no better. The parameters that a step has trained are judged on other data, at the cost of one evaluation.
"""

from typing import Any

import equinox as eqx
import jax

from rfho.domains.space import Rest
from rfho.problem.objective import Objective, is_objective
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree, Step


class Chooser(eqx.Module):
    """E(w_T, λ) on data of its own; of λ it is given the learned leaves, with the rest."""

    problem: Problem
    rest: Rest

    def __call__(self, params: Params, free: Hyper, k: Step) -> float:
        """The objective of trained parameters, at outer step k."""
        return float(_judged(self.problem, self.rest, params, free, k))


def problem_to_choose_by(problem: Problem, choose: Any) -> Problem | None:
    """The problem with ``choose`` as its validation data; None if nothing is to be chosen by.

    Args:
        problem: what is tuned.
        choose: as of `rfho.tune`.

    Raises:
        ValueError: the objective is not one function of the validation data; or the data are empty or not finite.
    """
    if choose is None:
        return None
    objectives = jax.tree.leaves(problem.objective, is_leaf=is_objective)
    if len(objectives) > 1 or isinstance(objectives[0], Objective):
        raise ValueError(
            "choose needs one objective that reads the problem's valid, but objective has "
            f"{len(objectives)} with data of their own: pick the best of solution.history yourself"
        )
    return Problem(problem.dynamics, problem.objective, None, choose, problem.horizon)


@eqx.filter_jit
def _judged(problem: Problem, rest: Rest, params: Params, free: Hyper, k: Step) -> PyTree:
    return problem.at(k, rest).evaluate(params, free)
