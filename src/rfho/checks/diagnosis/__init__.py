"""What is wrong with a hypergradient, and where: one file for each kind of finding."""

from rfho.checks.diagnosis.base import Finding, HyperGradientWarning, Kind, Severity, Where
from rfho.checks.diagnosis.diagnosis import Diagnosis, diagnose
from rfho.checks.diagnosis.growth import Growth
from rfho.checks.diagnosis.moves import move_findings
from rfho.checks.diagnosis.smoothness import Smoothness
from rfho.checks.diagnosis.symptoms import Seen, Watch, symptoms, warn

__all__ = [
    "Diagnosis",
    "Finding",
    "Growth",
    "HyperGradientWarning",
    "Kind",
    "Seen",
    "Severity",
    "Smoothness",
    "Watch",
    "Where",
    "diagnose",
    "move_findings",
    "symptoms",
    "warn",
]
