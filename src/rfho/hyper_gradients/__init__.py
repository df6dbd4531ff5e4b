"""The methods: every way from a problem and its hyperparameters to an estimate of the hypergradient."""

from rfho.hyper_gradients.base import AbstractHyperGradient, Aux, Estimate
from rfho.hyper_gradients.evolution import PersistentEvolution, SingleEvolution
from rfho.hyper_gradients.forward import ForwardHyperGradient
from rfho.hyper_gradients.implicit import ImplicitHyperGradient
from rfho.hyper_gradients.long_reverse import LongReverseHyperGradient
from rfho.hyper_gradients.random_forward import RandomForwardHyperGradient
from rfho.hyper_gradients.real_time import RealTimeHyperGradient
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.hyper_gradients.reversible import ReversibleHyperGradient
from rfho.hyper_gradients.truncated import OnlineTruncatedHyperGradient, TruncatedHyperGradient
from rfho.hyper_gradients.warm_restart import WarmRestart

__all__ = [
    "AbstractHyperGradient",
    "Aux",
    "Estimate",
    "ForwardHyperGradient",
    "ImplicitHyperGradient",
    "LongReverseHyperGradient",
    "OnlineTruncatedHyperGradient",
    "PersistentEvolution",
    "RandomForwardHyperGradient",
    "RealTimeHyperGradient",
    "ReverseHyperGradient",
    "ReversibleHyperGradient",
    "SingleEvolution",
    "TruncatedHyperGradient",
    "WarmRestart",
]
