"""The experiments of the papers, as ``rfho list`` shows them.

A new experiment is one file with an `Experiment` value, and its name in the tuple below.
"""

from typing import Any

from rfho.experiments.base import Experiment
from rfho.experiments.data_cleaning import DATA_CLEANING

EXPERIMENTS: tuple[Experiment[Any], ...] = (DATA_CLEANING,)
"""All experiments, in the order in which they are listed."""
