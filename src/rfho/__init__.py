"""RFHO: hyperparameters by gradient descent through training itself (arXiv 1703.01785).

At the top stand the verbs, what they are given, and the methods; what one receives from them or implements
for them lives in the package of its concept: `rfho.domains`, `rfho.dynamics`, `rfho.memory`, `rfho.choice`,
`rfho.checks`, `rfho.outer`, `rfho.hyper_gradients`, `rfho.placement`, `rfho.attribution`.
"""

import importlib

from rfho import (
    attribution,
    checks,
    choice,
    domains,
    dynamics,
    hyper_gradients,
    layers,
    memory,
    optim,
    outer,
    placement,
    solvers,
)
from rfho.checks import HyperGradientWarning, check_hyper_gradient, diagnose, smooth
from rfho.domains import (
    Box,
    CappedL1,
    Fixed,
    LogBox,
    NonNegative,
    Positive,
    Reals,
    Simplex,
    UnitInterval,
)
from rfho.dynamics import Descent, Dynamics, HeavyBall, Keep, ReversibleDescent, Variables, grad
from rfho.errors import HyperGradientError, Result
from rfho.hyper_gradients import (
    AlternatingHyperGradient,
    AutoHyperGradient,
    DistilledHyperGradient,
    DynamicBarrierHyperGradient,
    FirstOrderHyperGradient,
    FixedPoint,
    ForwardHyperGradient,
    ImplicitHyperGradient,
    LongReverseHyperGradient,
    OneStepHyperGradient,
    OnlineTruncatedHyperGradient,
    PersistentEvolutionHyperGradient,
    RandomForwardHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
    ReversibleHyperGradient,
    SingleEvolutionHyperGradient,
    SingleLoopHyperGradient,
    Stationary,
    T1T2HyperGradient,
    TruncatedHyperGradient,
    VarianceReducedHyperGradient,
    WarmRestartHyperGradient,
    hyper_gradient,
    solution,
)
from rfho.memory import Anchored, Binomial, DiskShelf, HostShelf, Recompute, Replay, StoreAll
from rfho.optim import schedules
from rfho.outer import (
    Listener,
    Retry,
    RichProgress,
    Solution,
    Tuner,
    iterate,
    iterate_many,
    train,
    tune,
    tune_many,
)
from rfho.problem import (
    Fresh,
    HostStream,
    Indexed,
    Keyed,
    Objective,
    Problem,
    Stream,
    in_chunks,
    over_tasks,
)

__version__ = "0.1.0"

__all__ = [
    "AlternatingHyperGradient",
    "Anchored",
    "AutoHyperGradient",
    "Binomial",
    "Box",
    "CappedL1",
    "Descent",
    "DiskShelf",
    "DistilledHyperGradient",
    "DynamicBarrierHyperGradient",
    "Dynamics",
    "FirstOrderHyperGradient",
    "Fixed",
    "FixedPoint",
    "ForwardHyperGradient",
    "Fresh",
    "HeavyBall",
    "HostShelf",
    "HostStream",
    "HyperGradientError",
    "HyperGradientWarning",
    "ImplicitHyperGradient",
    "Indexed",
    "Keep",
    "Keyed",
    "Listener",
    "LogBox",
    "LongReverseHyperGradient",
    "NonNegative",
    "Objective",
    "OneStepHyperGradient",
    "OnlineTruncatedHyperGradient",
    "PersistentEvolutionHyperGradient",
    "Positive",
    "Problem",
    "RandomForwardHyperGradient",
    "RealTimeHyperGradient",
    "Reals",
    "Recompute",
    "Replay",
    "Result",
    "Retry",
    "ReverseHyperGradient",
    "ReversibleDescent",
    "ReversibleHyperGradient",
    "RichProgress",
    "Simplex",
    "SingleEvolutionHyperGradient",
    "SingleLoopHyperGradient",
    "Solution",
    "Stationary",
    "StoreAll",
    "Stream",
    "T1T2HyperGradient",
    "TruncatedHyperGradient",
    "Tuner",
    "UnitInterval",
    "Variables",
    "VarianceReducedHyperGradient",
    "WarmRestartHyperGradient",
    "attribution",
    "check_hyper_gradient",
    "checks",
    "choice",
    "diagnose",
    "domains",
    "dynamics",
    "grad",
    "hyper_gradient",
    "hyper_gradients",
    "in_chunks",
    "iterate",
    "iterate_many",
    "layers",
    "memory",
    "optim",
    "outer",
    "over_tasks",
    "placement",
    "schedules",
    "smooth",
    "solution",
    "solvers",
    "train",
    "tune",
    "tune_many",
]


def __getattr__(name: str) -> object:
    # It stands behind the surface, and needs what only the extra rfho[cli] installs.
    if name == "Run":
        return importlib.import_module("rfho.runs").Run
    raise AttributeError(f"module 'rfho' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "Run"]
