"""A folder of a run that the first version has made: every later one reads it, and goes on in it."""

import json
import shutil

import numpy as np
import pytest
from killed import TESTS
from tuned_runs import tune

from rfho.runs import Run
from rfho.runs.listing import listed
from rfho.runs.report import render
from rfho.runs.run_folder import RunFolder

GOLDEN = TESTS / "golden" / "run-1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)
    return shutil.copytree(GOLDEN, tmp_path / "run")


def test_it_is_read(folder):
    found = RunFolder(folder)
    assert found.about().status == "finished"
    assert [row["step"] for row in found.history()] == [1, 2, 3]
    table = listed([folder])
    (row,), columns = table.rows, [column.name for column in table.columns]
    assert row[columns.index("best")] == min(row["objective"] for row in found.history())
    page = render(found)
    assert "<h1>Golden</h1>" in page
    assert "3 steps" in page


def test_it_is_gone_on_with(folder):
    rows = [json.loads(line) for line in (GOLDEN / "history.jsonl").read_text().splitlines()]
    allow = ["versions", "device", "settings", "data", "functions"]
    longer = tune("reverse", steps=5, run=Run(folder, allow=allow))
    assert [report.step for report in longer.history] == [1, 2, 3, 4, 5]
    assert [report.value for report in longer.history[:3]] == [row["objective"] for row in rows]
    whole = tune("reverse", steps=5)
    np.testing.assert_allclose(longer.history[4].value, whole.history[4].value, rtol=1e-6)
