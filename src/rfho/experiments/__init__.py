"""The experiments of the papers, as ``rfho list`` shows them.

A new experiment is one package with an `Experiment` value, and its name in the tuple below.
"""

from typing import Any

from rfho.experiments.chaos import CHAOS
from rfho.experiments.data_cleaning import DATA_CLEANING
from rfho.experiments.data_selection import DATA_SELECTION
from rfho.experiments.distilled_data import DISTILLED_DATA
from rfho.experiments.feature_penalties import FEATURE_PENALTIES
from rfho.experiments.hyper_representation import HYPER_REPRESENTATION
from rfho.experiments.language_weights import LANGUAGE_WEIGHTS
from rfho.experiments.learned_schedules import LEARNED_SCHEDULES
from rfho.experiments.races import RACES
from rfho.experiments.real_time_speech import REAL_TIME_SPEECH
from rfho.experiments.response_surface import RESPONSE_SURFACE
from rfho.experiments.shared_schedules import SHARED_SCHEDULES
from rfho.experiments.task_interactions import TASK_INTERACTIONS
from rfho.experiments.time_memory import TIME_MEMORY
from rfho.runs.experiment import Experiment

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    RACES,
    DATA_CLEANING,
    RESPONSE_SURFACE,
    CHAOS,
    DISTILLED_DATA,
    LEARNED_SCHEDULES,
    SHARED_SCHEDULES,
    TASK_INTERACTIONS,
    REAL_TIME_SPEECH,
    HYPER_REPRESENTATION,
    LANGUAGE_WEIGHTS,
    DATA_SELECTION,
    FEATURE_PENALTIES,
    TIME_MEMORY,
)
"""All experiments, in the order in which they are listed."""
