"""Listeners that carry a run to where it is watched: TensorBoard, MLflow, Weights & Biases, Trackio, a file.

    rfho.tune(problem, hyper, listeners=[rfho.tracking.TensorBoard("runs/lr")])

All of them say the same under the same names: the objective, every hyperparameter (quantiles of those that
are arrays), norms, the method's own statistics and seconds as numbers of the outer step; findings as text;
the settings of the run, and those that you give, as its parameters. A tracker that fails is told off once, and
the run goes on.
"""

from rfho.tracking.json_lines import JsonLines
from rfho.tracking.mlflow import MLflow
from rfho.tracking.names import parameters, scalars
from rfho.tracking.tensorboard import TensorBoard
from rfho.tracking.tracker import AbstractTracker
from rfho.tracking.trackio import Trackio
from rfho.tracking.wandb import WandB

__all__ = [
    "AbstractTracker",
    "JsonLines",
    "MLflow",
    "TensorBoard",
    "Trackio",
    "WandB",
    "parameters",
    "scalars",
]
