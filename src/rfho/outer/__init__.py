"""The outer loop: one step as a pure function, the loop with its clock and its listeners, many starts at once."""

from rfho.outer.events import AbstractRun, Listener, Restored, Start
from rfho.outer.progress import RichProgress
from rfho.outer.report import Best, Report, Solution
from rfho.outer.tuner import Tuner, TunerState
from rfho.outer.verbs import Trained, iterate, iterate_many, train, tune, tune_many

__all__ = [
    "AbstractRun",
    "Best",
    "Listener",
    "Report",
    "Restored",
    "RichProgress",
    "Solution",
    "Start",
    "Trained",
    "Tuner",
    "TunerState",
    "iterate",
    "iterate_many",
    "train",
    "tune",
    "tune_many",
]
