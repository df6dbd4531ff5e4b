"""Problems of which nothing lies anywhere yet: what they hold is laid out where it is used.

A placement moves arrays when it is called. Of a program that is only compiled they are abstract, and a layout is
known to it where it is traced: in what makes the first parameters and the batch of a step.
"""

from typing import Any

import equinox as eqx
import jax

from rfho.dynamics.initial import Given
from rfho.placement.layout import Devices, laid, whole_on_each
from rfho.problem import Objective, Problem
from rfho.problem.objective import is_objective
from rfho.typing import Batch, Hyper, Params, PyTree, Step


class Same(eqx.Module):
    """The same arrays at every step.

    Attributes:
        arrays: a batch.
    """

    arrays: PyTree

    def __call__(self, t: Step) -> Batch:
        """The arrays."""
        return self.arrays


class Start(eqx.Module):
    """Given parameters as a function of λ, on each device.

    Attributes:
        params: the parameters.
        devices: on which.
    """

    params: Params
    devices: Devices = eqx.field(static=True)

    def __call__(self, hyper: Hyper) -> Params:
        """The parameters."""
        return laid(self.params, whole_on_each(self.devices), "init", keep=False)


def from_functions(problem: Problem, devices: Devices) -> Problem:
    """``problem`` with functions in place of arrays, for `data_parallel` and `fsdp` to lay out."""
    dynamics: Any = problem.dynamics
    given = getattr(dynamics, "_init", None)
    if isinstance(given, Given):
        dynamics = eqx.tree_at(lambda d: d._init, dynamics, Start(given.params, devices))
    objective = jax.tree.map(
        lambda one: Objective(one.function, _same(one.data)) if isinstance(one, Objective) else one,
        problem.objective,
        is_leaf=is_objective,
    )
    train, valid = _same(problem.train), _same(problem.valid)
    return Problem(dynamics, objective, train=train, valid=valid, horizon=problem.horizon)


def _same(data: Any) -> Any:
    return data if data is None or callable(data) else Same(data)
