"""What a method will cost, and the method that picks a method."""

from rfho._programs.roofline import Rates
from rfho.choice.auto import AutoHyperGradient, Selection
from rfho.choice.candidates import Candidate, Exactness
from rfho.choice.forecast import Forecast

__all__ = ["AutoHyperGradient", "Candidate", "Exactness", "Forecast", "Rates", "Selection"]
