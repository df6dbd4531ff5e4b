"""What is tuned: dynamics, objective, data and horizon together; streams of data; many tasks as one problem."""

from rfho.problem.chunks import InChunks, in_chunks
from rfho.problem.fresh import Fresh
from rfho.problem.keyed import Keyed
from rfho.problem.moment import AbstractMoment, Moment
from rfho.problem.objective import Objective, Reading
from rfho.problem.problem import Problem
from rfho.problem.stream import HostStream, Indexed, Stream
from rfho.problem.tasks import over_tasks

__all__ = [
    "AbstractMoment",
    "Fresh",
    "HostStream",
    "InChunks",
    "Indexed",
    "Keyed",
    "Moment",
    "Objective",
    "Problem",
    "Reading",
    "Stream",
    "in_chunks",
    "over_tasks",
]
