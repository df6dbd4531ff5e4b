"""Whether a hypergradient is right, and where it goes wrong."""

from rfho.checks.check import Check, check_hyper_gradient
from rfho.checks.diagnosis import (
    Diagnosis,
    Finding,
    HyperGradientWarning,
    Kind,
    Severity,
    diagnose,
)
from rfho.checks.finite_differences import Difference, Verdict, derivative, judged, ladder
from rfho.checks.repairs import (
    Repair,
    clipped,
    enlarged,
    ready_made,
    rooted,
    shortened,
    slowed,
    warmed_up,
)
from rfho.checks.rounding import Rounding, rounding
from rfho.checks.smooth import Smoothed, Trial, smooth
from rfho.checks.truncation import BiasCurve, bias_curve

__all__ = [
    "BiasCurve",
    "Check",
    "Diagnosis",
    "Difference",
    "Finding",
    "HyperGradientWarning",
    "Kind",
    "Repair",
    "Rounding",
    "Severity",
    "Smoothed",
    "Trial",
    "Verdict",
    "bias_curve",
    "check_hyper_gradient",
    "clipped",
    "derivative",
    "diagnose",
    "enlarged",
    "judged",
    "ladder",
    "ready_made",
    "rooted",
    "rounding",
    "shortened",
    "slowed",
    "smooth",
    "warmed_up",
]
