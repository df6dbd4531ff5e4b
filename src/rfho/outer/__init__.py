"""The outer loop: one step as a pure function, the loop with its clock and history, many starts at once."""

from rfho.outer.loop import Report, Solution, iterate, tune
from rfho.outer.population import iterate_many, tune_many
from rfho.outer.progress import AbstractProgress, NoProgress, RichProgress
from rfho.outer.tuner import Tuner, TunerState

__all__ = [
    "AbstractProgress",
    "NoProgress",
    "Report",
    "RichProgress",
    "Solution",
    "Tuner",
    "TunerState",
    "iterate",
    "iterate_many",
    "tune",
    "tune_many",
]
