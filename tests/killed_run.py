"""A run that adds to its folder without end, and looks whether it is readable; see `killed`."""

import contextlib
import io
import itertools
import shutil
from pathlib import Path

import numpy as np
from fake_experiment import FakeSettings

from rfho.cli import main
from rfho.runs.owner import claim
from rfho.runs.run_folder import RunFolder
from rfho.runs.table import Column, make_table

WEIGHTS = np.random.default_rng(0).normal(size=(60, 60))


def run(path: Path) -> None:
    """Goes on where the last process was killed."""
    path.mkdir(exist_ok=True)
    folder = RunFolder(path, claim(path))
    if not (path / "run.json").exists():
        folder.begin(FakeSettings(), experiment="e", title="t", summary="s", command="c")
    first = len(folder.history())
    for step in itertools.count(first):
        folder.record({"step": step, "value": 0.5})
        folder.add_arrays("w", {"w": WEIGHTS}, "the weights")
        folder.add_table("t", make_table("t", [Column("step")], [[step]]))


def check(path: Path) -> None:
    """Readable, killed, without a gap in its history, with whole arrays; and `rfho report` says so."""
    if not (path / "run.json").exists():
        assert not (path / "history.jsonl").exists()
        return
    folder = RunFolder(path)
    assert folder.about().status == "killed"
    steps = [row["step"] for row in folder.history()]
    assert steps == list(range(len(steps)))
    for item in folder.contents():
        if item.kind == "arrays":
            np.testing.assert_array_equal(folder.arrays(item.name)["w"], WEIGHTS)
        else:
            folder.table(item.name)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert main(["report", str(path)], ()) == 0, said.getvalue()
    report = (path / "report.html").read_text(encoding="utf-8")
    assert "killed" in report
    assert "cannot be read" not in report
    if len(steps) > 200:
        shutil.rmtree(path)
