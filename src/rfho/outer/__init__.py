"""The outer loop: one step as a pure function, the loop with its clock and its listeners, many starts at once."""

from rfho.outer.events import AbstractRun, Listener, Standing, Start, written_by_method
from rfho.outer.form import Form
from rfho.outer.history import History
from rfho.outer.identity import differences, fingerprint
from rfho.outer.lines import named, norm, shown
from rfho.outer.progress import RichProgress
from rfho.outer.report import Best, Report, Solution
from rfho.outer.retry import Retry
from rfho.outer.signals import TERMINATED, ended_by_sigterm
from rfho.outer.snapshot import Plain, Sections, load_snapshot, save_snapshot
from rfho.outer.trained import Trained, train
from rfho.outer.tuner import Tuner, TunerState
from rfho.outer.verbs import iterate, iterate_many, tune, tune_many

__all__ = [
    "TERMINATED",
    "AbstractRun",
    "Best",
    "Form",
    "History",
    "Listener",
    "Plain",
    "Report",
    "Retry",
    "RichProgress",
    "Sections",
    "Solution",
    "Standing",
    "Start",
    "Trained",
    "Tuner",
    "TunerState",
    "differences",
    "ended_by_sigterm",
    "fingerprint",
    "iterate",
    "iterate_many",
    "load_snapshot",
    "named",
    "norm",
    "save_snapshot",
    "shown",
    "train",
    "tune",
    "tune_many",
    "written_by_method",
]
