"""RFHO: hyperparameters by gradient descent through training itself (arXiv 1703.01785)."""

from rfho import domains, hyper_gradients, optim, schedules, solvers
from rfho.adjoint import AbstractCondition, FixedPoint, Stationary
from rfho.audit import Audit
from rfho.candidates import Candidate, Exactness
from rfho.check import Check, check_hyper_gradient
from rfho.checkpoint import AbstractCheckpoint, Anchored, Binomial, Recompute, Replay, StoreAll
from rfho.chunks import InChunks, in_chunks
from rfho.diagnose import Diagnosis, Finding, HyperGradientWarning, Kind, Severity, diagnose
from rfho.domains import (
    AbstractDomain,
    Box,
    CappedL1,
    ConvexSet,
    Fixed,
    NonNegative,
    Positive,
    Reals,
    Simplex,
    SymmetricNonNegative,
    UnitInterval,
)
from rfho.dynamics import (
    AbstractDynamics,
    Descent,
    DescentState,
    DescentWithValue,
    Dynamics,
    HeavyBall,
    HeavyBallState,
    Keep,
    ReversibleDescent,
    ReversibleState,
    Way,
    reversal_error,
    steps_undone_within,
)
from rfho.finite_differences import Verdict
from rfho.forecast import Forecast
from rfho.grad import grad
from rfho.hyper_gradient import hyper_gradient
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    AutoHyperGradient,
    Aux,
    Estimate,
    Selection,
)
from rfho.population import iterate_many, tune_many
from rfho.problem import Objective, Problem
from rfho.progress import AbstractProgress, NoProgress, RichProgress
from rfho.result import HyperGradientError, Result
from rfho.shelf import AbstractShelf, DiskShelf, HostShelf
from rfho.storage import AbstractStorage, Exact, HalfPrecision
from rfho.stream import HostStream, Indexed, Stream
from rfho.tasks import over_tasks
from rfho.tune import Report, Solution, iterate, tune
from rfho.tuner import Tuner, TunerState
from rfho.work import Rates

__version__ = "0.1.0"

__all__ = [
    "AbstractCheckpoint",
    "AbstractCondition",
    "AbstractDomain",
    "AbstractDynamics",
    "AbstractHyperGradient",
    "AbstractProgress",
    "AbstractShelf",
    "AbstractStorage",
    "Anchored",
    "Audit",
    "AutoHyperGradient",
    "Aux",
    "Binomial",
    "Box",
    "Candidate",
    "CappedL1",
    "Check",
    "ConvexSet",
    "Descent",
    "DescentState",
    "DescentWithValue",
    "Diagnosis",
    "DiskShelf",
    "Dynamics",
    "Estimate",
    "Exact",
    "Exactness",
    "Finding",
    "Fixed",
    "FixedPoint",
    "Forecast",
    "HalfPrecision",
    "HeavyBall",
    "HeavyBallState",
    "HostShelf",
    "HostStream",
    "HyperGradientError",
    "HyperGradientWarning",
    "InChunks",
    "Indexed",
    "Keep",
    "Kind",
    "NoProgress",
    "NonNegative",
    "Objective",
    "Positive",
    "Problem",
    "Rates",
    "Reals",
    "Recompute",
    "Replay",
    "Report",
    "Result",
    "ReversibleDescent",
    "ReversibleState",
    "RichProgress",
    "Selection",
    "Severity",
    "Simplex",
    "Solution",
    "Stationary",
    "StoreAll",
    "Stream",
    "SymmetricNonNegative",
    "Tuner",
    "TunerState",
    "UnitInterval",
    "Verdict",
    "Way",
    "check_hyper_gradient",
    "diagnose",
    "domains",
    "grad",
    "hyper_gradient",
    "hyper_gradients",
    "in_chunks",
    "iterate",
    "iterate_many",
    "optim",
    "over_tasks",
    "reversal_error",
    "schedules",
    "solvers",
    "steps_undone_within",
    "tune",
    "tune_many",
]
