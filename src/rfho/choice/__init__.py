"""What a method will cost, from shapes alone: the parts of estimates, and the rates of a machine."""

from rfho._programs.roofline import Rates
from rfho.choice.forecast import Forecast, Parts

__all__ = ["Forecast", "Parts", "Rates"]
