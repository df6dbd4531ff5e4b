"""The outer loop: one step as a pure function, the loop with its clock and its listeners, many starts at once."""

from rfho.outer.events import AbstractRun, Listener, Standing, Start, written_by_method
from rfho.outer.form import Form
from rfho.outer.history import History
from rfho.outer.identity import differences, fingerprint
from rfho.outer.lines import named, norm, shown
from rfho.outer.parts import Lying, layouts_of, mesh_of, parts_of
from rfho.outer.peers import Peers, attempt, peers_of
from rfho.outer.progress import RichProgress
from rfho.outer.report import Best, Report, Solution
from rfho.outer.retry import Retry
from rfho.outer.signals import TERMINATED, ended_by_sigterm
from rfho.outer.snapshot import (
    Plain,
    Sections,
    Snapshot,
    commit_snapshot,
    drop_snapshots,
    load_snapshot,
    save_snapshot,
)
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
    "Lying",
    "Peers",
    "Plain",
    "Report",
    "Retry",
    "RichProgress",
    "Sections",
    "Snapshot",
    "Solution",
    "Standing",
    "Start",
    "Trained",
    "Tuner",
    "TunerState",
    "attempt",
    "commit_snapshot",
    "differences",
    "drop_snapshots",
    "ended_by_sigterm",
    "fingerprint",
    "iterate",
    "iterate_many",
    "layouts_of",
    "load_snapshot",
    "mesh_of",
    "named",
    "norm",
    "parts_of",
    "peers_of",
    "save_snapshot",
    "shown",
    "train",
    "tune",
    "tune_many",
    "written_by_method",
]
