"""The methods: every way from a problem and its hyperparameters to an estimate of the hypergradient."""

from rfho._implicit.audit import Audit
from rfho._implicit.condition import AbstractCondition, FixedPoint, Stationary
from rfho._implicit.reduction import SAGA, SARAH, AbstractReduction
from rfho._implicit.solution import Solved, solution
from rfho._implicit.support import OnSupport
from rfho.hyper_gradients.alternating import AlternatingHyperGradient, T1T2HyperGradient
from rfho.hyper_gradients.auto import AutoHyperGradient, Selection
from rfho.hyper_gradients.base import AbstractHyperGradient, Aux, Estimate, Mode
from rfho.hyper_gradients.candidates import Candidate, Exactness
from rfho.hyper_gradients.distilled import DistilledHyperGradient
from rfho.hyper_gradients.dynamic_barrier import DynamicBarrierHyperGradient
from rfho.hyper_gradients.evolution import (
    PersistentEvolutionHyperGradient,
    SingleEvolutionHyperGradient,
)
from rfho.hyper_gradients.first_order import FirstOrderHyperGradient
from rfho.hyper_gradients.forward import ForwardHyperGradient
from rfho.hyper_gradients.implicit import ImplicitHyperGradient
from rfho.hyper_gradients.long_reverse import LongReverseHyperGradient
from rfho.hyper_gradients.once import hyper_gradient
from rfho.hyper_gradients.one_step import OneStepHyperGradient
from rfho.hyper_gradients.planned import Device, Need, Plan, plan
from rfho.hyper_gradients.precision import Precision
from rfho.hyper_gradients.random_forward import RandomForwardHyperGradient
from rfho.hyper_gradients.real_time import RealTimeHyperGradient
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.hyper_gradients.reversible import ReversibleHyperGradient
from rfho.hyper_gradients.single_loop import SingleLoopHyperGradient
from rfho.hyper_gradients.truncated import OnlineTruncatedHyperGradient, TruncatedHyperGradient
from rfho.hyper_gradients.variance_reduced import VarianceReducedHyperGradient
from rfho.hyper_gradients.warm_restart import WarmRestartHyperGradient
from rfho.hyper_gradients.watch import Watch

WarmRestart = WarmRestartHyperGradient
PersistentEvolution = PersistentEvolutionHyperGradient
SingleEvolution = SingleEvolutionHyperGradient
"""Names of version 0.1 that programs still use."""

__all__ = [
    "SAGA",
    "SARAH",
    "AbstractCondition",
    "AbstractHyperGradient",
    "AbstractReduction",
    "AlternatingHyperGradient",
    "Audit",
    "AutoHyperGradient",
    "Aux",
    "Candidate",
    "Device",
    "DistilledHyperGradient",
    "DynamicBarrierHyperGradient",
    "Estimate",
    "Exactness",
    "FirstOrderHyperGradient",
    "FixedPoint",
    "ForwardHyperGradient",
    "ImplicitHyperGradient",
    "LongReverseHyperGradient",
    "Mode",
    "Need",
    "OnSupport",
    "OneStepHyperGradient",
    "OnlineTruncatedHyperGradient",
    "PersistentEvolutionHyperGradient",
    "Plan",
    "Precision",
    "RandomForwardHyperGradient",
    "RealTimeHyperGradient",
    "ReverseHyperGradient",
    "ReversibleHyperGradient",
    "Selection",
    "SingleEvolutionHyperGradient",
    "SingleLoopHyperGradient",
    "Solved",
    "Stationary",
    "T1T2HyperGradient",
    "TruncatedHyperGradient",
    "VarianceReducedHyperGradient",
    "WarmRestartHyperGradient",
    "Watch",
    "hyper_gradient",
    "plan",
    "solution",
]
