"""Training algorithms as dynamical systems."""

from rfho.dynamics.base import AbstractDynamics, Keep, Way
from rfho.dynamics.descent import Descent, DescentState
from rfho.dynamics.function import Dynamics

__all__ = ["AbstractDynamics", "Descent", "DescentState", "Dynamics", "Keep", "Way"]
