"""Training algorithms as dynamical systems."""

from rfho.dynamics._grad import grad
from rfho.dynamics.base import AbstractDescent, AbstractDynamics, AbstractMinimisation, Keep, Way
from rfho.dynamics.descent import Descent, DescentState
from rfho.dynamics.function import Dynamics
from rfho.dynamics.heavy_ball import (
    HeavyBall,
    HeavyBallState,
    reversal_error,
    steps_undone_within,
)
from rfho.dynamics.model import SplitModel
from rfho.dynamics.newton import Newton, NewtonState
from rfho.dynamics.prox import Prox, elastic_net, group_lasso, lasso, within
from rfho.dynamics.proximal import Proximal, ProximalState
from rfho.dynamics.reversible import ReversibleDescent, ReversibleState
from rfho.dynamics.variables import Variables
from rfho.dynamics.with_value import DescentWithValue
from rfho.dynamics.working_set import left_out, working_set

__all__ = [
    "AbstractDescent",
    "AbstractDynamics",
    "AbstractMinimisation",
    "Descent",
    "DescentState",
    "DescentWithValue",
    "Dynamics",
    "HeavyBall",
    "HeavyBallState",
    "Keep",
    "Newton",
    "NewtonState",
    "Prox",
    "Proximal",
    "ProximalState",
    "ReversibleDescent",
    "ReversibleState",
    "SplitModel",
    "Variables",
    "Way",
    "elastic_net",
    "grad",
    "group_lasso",
    "lasso",
    "left_out",
    "reversal_error",
    "steps_undone_within",
    "within",
    "working_set",
]
