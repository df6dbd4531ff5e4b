"""Which training examples caused an answer: the derivative by the weight of every example, through training."""

from rfho.attribution.answer import Influence, Prediction, Ranked
from rfho.attribution.question import influence
from rfho.attribution.validation import Validation
from rfho.attribution.weights import weighted

__all__ = [
    "Influence",
    "Prediction",
    "Ranked",
    "Validation",
    "influence",
    "weighted",
]
