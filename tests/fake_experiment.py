"""A small experiment for the tests of the command line; also a program that runs it.

    python fake_experiment.py run fake --set wait=true

With ``wait`` it stays at its third outer step until Ctrl-C.
"""

import dataclasses
import signal
import sys
import time

import numpy as np
from rich.console import Console

from rfho import HyperGradientError, Result
from rfho.cli import main
from rfho.datasets import DataNotFoundError
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.pictures import curves
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, between, one_of, setting
from rfho.runs.table import Column, Spread, make_table


@dataclasses.dataclass(frozen=True)
class FakeSettings:
    data: str = setting("digits", "the data set", one_of("digits", "mnist"))
    seed: int = setting(0, "of all that is random", at_least(0))
    steps: int = setting(3, "outer steps", at_least(1))
    rate: float = setting(0.5, "outer step size", above(0))
    share: float = setting(0.5, "of corrupted labels", between(0, 1))
    radii: tuple[float, ...] = setting((1.0, 2.0), "bounds on the sum", above(0))
    shuffle: bool = setting(True, "whether to shuffle")
    note: str = setting("", "free text")
    wait: bool = setting(False, "whether to wait for Ctrl-C")


def run(settings: FakeSettings, folder: RunFolder, console: Console) -> None:
    if settings.data == "mnist":
        raise DataNotFoundError("no such file: set RFHO_DATA")
    values = []
    with until_interrupted(folder, console):
        for step in range(settings.steps):
            if settings.note == "diverge" and step == 1:
                raise HyperGradientError(Result.NON_FINITE_VALUE, "the objective became NaN")
            if settings.note == "fail" and step == 1:
                raise ZeroDivisionError("a bug <here>")
            values.append(float(np.exp(-settings.rate * step)))
            folder.record({"step": step, "value": values[-1], "bad": float("nan")})
            if settings.wait and step == 2:
                console.print("waiting")
                time.sleep(30)
    drawn = curves({"value": np.array(values)}, x_label="outer step", y_label="objective")
    folder.add_picture("value", drawn, "The objective <E> at each outer step.")
    rows = [("oracle", Spread(90.456, 0.21)), ("baseline", None)]
    columns = [Column("method"), Column("accuracy", 2)]
    folder.add_table("accuracy", make_table("Test accuracy", columns, rows, note="Of 3 runs."))
    folder.add_arrays("values", {"values": np.array(values)}, "All objectives:")


FAKE = Experiment(
    name="fake",
    title="A fake experiment",
    summary="The exponential function falls.",
    quick=FakeSettings(),
    full=FakeSettings(steps=200),
    run=run,
)

if __name__ == "__main__":
    # A process started in the background inherits a SIGINT that is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(experiments=(FAKE,)))
