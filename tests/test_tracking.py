"""Trackers: what they write is read back, as far as possible by the tool's own package."""

import json
import posixpath
import re
import struct
import sys

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked import (
    HYPER,
    OUTER,
    PROBLEM,
    SETTINGS,
    report_of,
    taken_back,
    tuned,
    with_finding,
)

import rfho
from rfho.outer import Start
from rfho.tracking import AbstractTracker, JsonLines, TensorBoard, scalars

# --- Names and numbers -----------------------------------------------------------------------------------


def test_scalars_are_the_objective_every_hyperparameter_norms_statistics_and_seconds():
    (report,) = rfho.iterate(PROBLEM, HYPER, optim=optax.sgd(0.02), steps=1)
    l2, by_l2 = report.hyper["penalty"]["l2"], report.hypergradient["penalty"]["l2"]
    numbers = scalars(report)
    sums = {
        f"hyper/penalty/l2/{name}": q
        for name, q in zip(("min", "max"), (l2.min(), l2.max()), strict=True)
    }
    sums["hyper/penalty/l2/median"] = np.median(l2)
    expected = {
        "objective": report.value,
        "hyper/lr": float(report.hyper["lr"]),
        "hyper/cut": 2.0,
        "hypergradient/lr": float(report.hypergradient["lr"]),
        "hypergradient/cut": 0.0,
        "hypergradient/penalty/l2/norm": np.linalg.norm(by_l2),
        "norm/hyper": np.linalg.norm([2.0, report.hyper["lr"], *l2]),
        "norm/hypergradient": np.hypot(report.hypergradient["lr"], np.linalg.norm(by_l2)),
        "seconds": report.seconds,
        **sums,
        **{f"method/{name}": number for name, number in report.stats.items()},
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)
    assert set(numbers) - set(expected) == {"hyper/penalty/l2/q25", "hyper/penalty/l2/q75"}
    assert all(type(number) is float for number in numbers.values())


def test_no_square_overflows_where_a_number_is_huge():
    report = rfho.outer.Report(
        1, {"a": np.full(4, 1e200)}, 1e300, {"a": np.full(4, -3e250)}, {}, 0.1
    )
    found = scalars(report)
    assert found["norm/hyper"] == pytest.approx(2e200)
    assert found["norm/hypergradient"] == found["hypergradient/a/norm"] == pytest.approx(6e250)


def test_a_number_and_several_objectives_have_names_too():
    report = rfho.outer.Report(1, np.float32(0.5), {"a": 1.0, "b": 2.0}, np.float32(-2.0), {}, 0.1)
    numbers = scalars(report)
    assert numbers["hyper"] == 0.5
    assert numbers["hypergradient"] == -2.0
    assert (numbers["objective/a"], numbers["objective/b"]) == (1.0, 2.0)


keys = st.text(max_size=6) | st.sampled_from(
    ["..", ".", "", "/", "a/b", "l2 (dense)", "λ", "a\nb", "a_b"]
)


@given(st.dictionaries(keys, st.dictionaries(keys, st.just(np.ones(())), max_size=3), max_size=4))
def test_every_leaf_has_a_name_of_its_own_that_every_tracker_takes(hyper):
    report = rfho.outer.Report(1, hyper, 0.0, hyper, {}, 0.1)
    names = [name for name in scalars(report) if name.startswith("hyper/")]
    assert len(names) == len(jax.tree.leaves(hyper))
    for name in names:
        assert re.fullmatch(r"[\w./-]+", name)
        assert posixpath.normpath(name) == name


# --- A text file -----------------------------------------------------------------------------------------


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@with_finding
def test_lines_of_json_hold_the_whole_run(tmp_path):
    path = tmp_path / "new" / "run.jsonl"
    solution = tuned(JsonLines(path, SETTINGS))
    start, *middle, close = lines_of(path)
    assert start["event"] == "start"
    settings = start["settings"]
    assert (settings["horizon"], settings["steps"]) == (4, 4)
    assert (settings["data"], settings["seed"]) == ("digits (8 x 8)", 3)
    assert (settings["start/lr"], settings["start/power"]) == (0.05, 2)
    assert settings["start/penalty/l2"] == "float64[3]"
    assert settings["method"].startswith("ReverseHyperGradient(")
    steps = [line for line in middle if line["event"] == "step"]
    for line, report in zip(steps, solution.history, strict=True):
        assert line == {"event": "step", "step": report.step, **scalars(report)}
    findings = [line for line in middle if line["event"] == "finding"]
    assert [line["kind"] for line in findings] == ["ZERO_GRADIENT"]
    assert findings[0]["text"].startswith("warning: ")
    assert close["result"] == "STEPS_DONE"


@with_finding
def test_a_run_that_fails_says_so_and_writes_null_for_what_is_no_number(tmp_path):
    path = tmp_path / "run.jsonl"
    tracker = JsonLines(path)
    tuned(tracker, optim=optax.scale(float("inf")), throw=False)
    assert [line["event"] for line in lines_of(path)] == ["start", "close"]
    assert lines_of(path)[-1]["result"] == "NON_FINITE_HYPER"
    tracker.log({"method/growth": float("inf")}, 1)
    assert lines_of(path)[-1]["method/growth"] is None


def test_of_a_step_that_is_taken_again_the_last_line_of_json_stands(tmp_path):
    stands = taken_back(JsonLines(tmp_path / "run.jsonl"))
    lines = [line for line in lines_of(tmp_path / "run.jsonl") if line["event"] == "step"]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 2, 3, 4, 5]
    last = {line["step"]: line for line in lines}
    assert [last[k]["objective"] for k in range(1, 6)] == [one.value for one in stands]
    assert [line.get("retries", 0) for line in lines] == [0] * 4 + [1] * 4


class Rows(AbstractTracker):
    """Keeps its rows."""

    by_rows = True

    def __init__(self):
        super().__init__()
        self.rows = []

    def open(self, settings):
        pass

    def log(self, numbers, step):
        steps = {name: number for name, number in numbers.items() if name.endswith("outer_step")}
        self.rows.append((step, *steps.values()))

    def say(self, kind, text, step):
        pass

    def end(self, result):
        pass


def test_no_row_comes_twice_where_a_step_is_taken_again():
    rows = Rows()
    taken_back(rows)
    assert rows.rows == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 2), (6, 3), (7, 4), (8, 5)]


def test_members_share_their_rows_also_when_one_goes_back():
    rows = Rows()
    rows.start(Start(PROBLEM, rfho.Tuner().method, (HYPER, HYPER), 5, OUTER))
    for k, other in ((1, 1), (2, 2), (3, 1), (4, 2), (None, 3), (None, 4), (None, 5)):
        for member, step in ((0, k), (1, other)):
            if step is not None:
                rows.step(report_of(step, member=member))
    steps = [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (3, 1), (4, 4), (4, 2), (5, 3), (6, 4), (7, 5)]
    assert rows.rows == steps


def test_members_have_their_number_before_their_names(tmp_path):
    path = tmp_path / "run.jsonl"
    starts = [HYPER, HYPER | {"lr": 0.1}]
    solutions = rfho.tune_many(PROBLEM, starts, optim=OUTER, steps=2, listeners=[JsonLines(path)])
    start, *steps, _ = lines_of(path)
    assert (start["settings"]["0/start/lr"], start["settings"]["1/start/lr"]) == (0.05, 0.1)
    assert [line["step"] for line in steps] == [1, 1, 2, 2]
    assert steps[3]["1/objective"] == solutions[1].history[1].value


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path):
    class Full(JsonLines):
        def log(self, numbers, step):
            raise OSError("the disk is full")

    with pytest.warns(UserWarning, match="Full failed and is heard no more"):
        solution = tuned(Full(tmp_path / "run.jsonl"), steps=2)
    assert len(solution.history) == 2


# --- TensorBoard -----------------------------------------------------------------------------------------


def events_of(folder):
    """What the event files of a folder hold, their checksums compared."""
    crc32c = pytest.importorskip("tensorboardX.crc32c").crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length, check), data = struct.unpack("<QI", data[:12]), data[12:]
            assert check == masked(struct.pack("<Q", length))
            record, (check,), data = (
                data[:length],
                struct.unpack("<I", data[length:][:4]),
                data[length + 4 :],
            )
            assert check == masked(record)
            yield Event.FromString(record)


def values_of(folder):
    return [(event.step, value) for event in events_of(folder) for value in event.summary.value]


@with_finding
def test_tensorboard_gets_scalars_texts_and_settings(tmp_path):
    solution = tuned(TensorBoard(tmp_path / "lr", SETTINGS))
    values = values_of(tmp_path / "lr")
    for report in solution.history:
        here = {
            value.tag: value.simple_value
            for step, value in values
            if step == report.step and value.WhichOneof("value") == "simple_value"
        }
        assert here == pytest.approx(scalars(report), rel=1e-6)
    texts = {
        value.tag: value.tensor.string_val[0].decode()
        for _, value in values
        if value.tensor.string_val
    }
    assert texts["result/text_summary"].startswith("STEPS_DONE")
    assert texts["finding/ZERO_GRADIENT/text_summary"].startswith("warning: ")
    row = hparams_of(values, "session_start_info").session_start_info.hparams
    assert row["start/lr"].number_value == 0.05
    assert row["data"].string_value == "digits (8 x 8)"
    columns = hparams_of(values, "experiment").experiment
    assert {column.name for column in columns.hparam_infos} == set(row)
    assert [column.name.tag for column in columns.metric_infos] == ["objective"]
    assert hparams_of(values, "session_end_info").session_end_info.status == 1


def hparams_of(values, name):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    (content,) = [
        value.metadata.plugin_data.content
        for _, value in values
        if value.tag == f"_hparams_/{name}"
    ]
    return HParamsPluginData.FromString(content)


@with_finding
def test_tensorboard_does_not_mark_a_failed_run_as_done(tmp_path):
    tuned(TensorBoard(tmp_path), optim=optax.scale(float("inf")), throw=False)
    tags = [value.tag for _, value in values_of(tmp_path)]
    assert "_hparams_/session_start_info" in tags
    assert "_hparams_/session_end_info" not in tags


def test_a_step_that_is_taken_again_takes_the_place_of_what_was_there(tmp_path):
    stands = taken_back(TensorBoard(tmp_path))
    objective = []
    for event in events_of(tmp_path):  # as TensorBoard reads them
        if event.session_log.status == event.session_log.START and event.step:
            objective = [each for each in objective if each[0] < event.step]
        for value in event.summary.value:
            objective += [(event.step, value.simple_value)] * (value.tag == "objective")
    assert objective == [(one.step, one.value) for one in stands]


def test_a_run_that_goes_on_takes_the_place_of_what_a_killed_one_had_beyond(tmp_path):
    tracker = TensorBoard(tmp_path)
    start = Start(PROBLEM, rfho.Tuner().method, (HYPER,), 5, OUTER)
    tracker.start(start)
    tracker.step(report_of(3))
    tracker.close(rfho.Result.STEPS_DONE)
    begins = [event.step for event in events_of(tmp_path) if event.HasField("session_log")]
    assert begins[-1] == 3


def test_a_second_run_in_the_same_second_adds_to_the_folder_of_the_first(tmp_path):
    tracker = TensorBoard(tmp_path)
    for _ in range(2):
        tuned(tracker, steps=2)
    steps = [step for step, value in values_of(tmp_path) if value.tag == "objective"]
    assert sorted(steps) == [1, 1, 2, 2]


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        ImportError, match=r"TensorBoard needs tensorboardX: pip install 'rfho\[tensorboard\]'"
    ):
        tuned(TensorBoard(tmp_path), steps=2)
