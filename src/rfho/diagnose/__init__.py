"""What is wrong with a hypergradient, and where: one file for each kind of finding."""

from rfho.diagnose.base import Finding, HyperGradientWarning, Kind, Severity, Where
from rfho.diagnose.diagnosis import Diagnosis, diagnose
from rfho.diagnose.growth import Growth
from rfho.diagnose.smoothness import Smoothness
from rfho.diagnose.symptoms import Seen, Watch, symptoms, warn

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
    "symptoms",
    "warn",
]
