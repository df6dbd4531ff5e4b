"""RFHO: hyperparameters by gradient descent through training itself (arXiv 1703.01785)."""

from rfho import domains, hyper_gradients, optim, solvers
from rfho._implicit.audit import Audit
from rfho._implicit.condition import AbstractCondition, FixedPoint, Stationary
from rfho._programs.roofline import Rates
from rfho.checks.check import Check, check_hyper_gradient
from rfho.checks.diagnosis import Diagnosis, Finding, HyperGradientWarning, Kind, Severity, diagnose
from rfho.checks.finite_differences import Verdict
from rfho.choice.auto import AutoHyperGradient, Selection
from rfho.choice.candidates import Candidate, Exactness
from rfho.choice.forecast import Forecast
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
from rfho.dynamics._grad import grad
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    Aux,
    Estimate,
)
from rfho.hyper_gradients.once import hyper_gradient
from rfho.memory import AbstractCheckpoint, Anchored, Binomial, Recompute, Replay, StoreAll
from rfho.memory.disk_shelf import DiskShelf
from rfho.memory.encoding import AbstractStorage, Exact, HalfPrecision
from rfho.memory.shelf import AbstractShelf, HostShelf
from rfho.optim import schedules
from rfho.outer import (
    Best,
    Listener,
    Report,
    RichProgress,
    Solution,
    Trained,
    Tuner,
    TunerState,
    iterate,
    iterate_many,
    train,
    tune,
    tune_many,
)
from rfho.problem.chunks import InChunks, in_chunks
from rfho.problem.fresh import Fresh
from rfho.problem.objective import Objective
from rfho.problem.problem import Problem
from rfho.problem.stream import HostStream, Indexed, Stream
from rfho.problem.tasks import over_tasks

__version__ = "0.1.0"

__all__ = [
    "AbstractCheckpoint",
    "AbstractCondition",
    "AbstractDomain",
    "AbstractDynamics",
    "AbstractHyperGradient",
    "AbstractShelf",
    "AbstractStorage",
    "Anchored",
    "Audit",
    "AutoHyperGradient",
    "Aux",
    "Best",
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
    "Fresh",
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
    "Listener",
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
    "Trained",
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
    "train",
    "tune",
    "tune_many",
]
