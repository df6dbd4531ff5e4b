"""What users may import, held name by name: a name that comes or goes is a decision, not an accident."""

import importlib
import inspect

import pytest

import rfho
from rfho.hyper_gradients import AbstractHyperGradient

VERBS = {
    *("check_hyper_gradient", "diagnose", "grad", "hyper_gradient", "in_chunks", "iterate"),
    *("iterate_many", "over_tasks", "smooth", "solution", "train", "tune", "tune_many"),
}
NOUNS = {
    *("Descent", "Dynamics", "Fresh", "HeavyBall", "HostStream", "Indexed", "Keep", "Keyed"),
    *(
        "Listener",
        "Objective",
        "Problem",
        "Result",
        "Retry",
        "ReversibleDescent",
        "RichProgress",
        "Solution",
    ),
    *("Stream", "Tuner", "Variables", "HyperGradientError", "HyperGradientWarning"),
}
DOMAINS = {
    *(
        "Box",
        "CappedL1",
        "Fixed",
        "LogBox",
        "NonNegative",
        "Positive",
        "Reals",
        "Simplex",
        "UnitInterval",
    ),
}
MEMORY = {"Anchored", "Binomial", "DiskShelf", "HostShelf", "Recompute", "Replay", "StoreAll"}
CONDITIONS = {"FixedPoint", "Stationary"}
METHODS = {
    *("AlternatingHyperGradient", "AutoHyperGradient", "FirstOrderHyperGradient"),
    *(
        "DistilledHyperGradient",
        "DynamicBarrierHyperGradient",
        "ForwardHyperGradient",
        "OneStepHyperGradient",
    ),
    *("ImplicitHyperGradient", "SingleLoopHyperGradient", "T1T2HyperGradient"),
    *("LongReverseHyperGradient", "OnlineTruncatedHyperGradient"),
    *("PersistentEvolutionHyperGradient", "RandomForwardHyperGradient", "RealTimeHyperGradient"),
    *("ReverseHyperGradient", "ReversibleHyperGradient", "SingleEvolutionHyperGradient"),
    *("TruncatedHyperGradient", "VarianceReducedHyperGradient", "WarmRestartHyperGradient"),
}
PACKAGES = {
    *(
        "attribution",
        "checks",
        "choice",
        "domains",
        "dynamics",
        "hyper_gradients",
        "layers",
        "memory",
        "optim",
        "outer",
        "placement",
    ),
    *("schedules", "solvers"),
}


def test_the_names_at_the_top_are_these():
    assert set(rfho.__all__) == (VERBS | NOUNS | DOMAINS | MEMORY | CONDITIONS | METHODS | PACKAGES)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_one_and_ends_alike(name):
    assert issubclass(getattr(rfho, name), AbstractHyperGradient)
    assert name.endswith("HyperGradient")


def test_every_public_method_of_the_package_is_at_the_top():
    of_package = {
        name
        for name, item in vars(rfho.hyper_gradients).items()
        if inspect.isclass(item)
        and issubclass(item, AbstractHyperGradient)
        and not inspect.isabstract(item)
        and name == item.__name__
    }
    assert of_package <= METHODS


@pytest.mark.parametrize("package", sorted(PACKAGES - {"schedules"}))
def test_a_package_offers_what_it_lists(package):
    module = importlib.import_module(f"rfho.{package}")
    missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert not missing
    assert module is getattr(rfho, package)
