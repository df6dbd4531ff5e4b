"""Trackers that are too heavy for every run: what they write is read back with their own packages."""

import json
import struct
import time

import optax
import pytest
from tracked import SETTINGS, taken_back, tuned, with_finding

import rfho
from rfho.tracking import MLflow, TensorBoard, Trackio, WandB, scalars

pytestmark = pytest.mark.frameworks

FAILING = optax.scale(float("inf"))


def package(name):
    return pytest.importorskip(
        name, reason=f"{name} is not installed: make test-frameworks installs it"
    )


# --- MLflow ----------------------------------------------------------------------------------------------


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = package("mlflow")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("rates")
    yield mlflow
    mlflow.set_tracking_uri(before)


@with_finding
@pytest.mark.filterwarnings("ignore:.*noload.*")
def test_mlflow_gets_metrics_parameters_and_findings(mlflow):
    solution = tuned(MLflow("first", settings=SETTINGS))
    (run,) = mlflow.search_runs(output_format="list")
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.tags["result"].startswith("STEPS_DONE")
    client = mlflow.MlflowClient()
    for name in scalars(solution.history[0]):
        found = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        assert found == [(report.step, scalars(report)[name]) for report in solution.history]
    assert run.data.params["start/lr"] == "0.05"
    assert run.data.params["data"] == "digits (8 x 8)"
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/findings.txt")
    assert text.startswith("step 3, ZERO_GRADIENT: warning: ")
    assert mlflow.active_run() is None


@pytest.mark.filterwarnings("ignore:.*noload.*")
def test_mlflow_nests_runs_goes_on_with_one_and_says_which_failed(mlflow):
    with mlflow.start_run() as outer:
        tuned(MLflow(), optim=FAILING, throw=False)
        assert mlflow.active_run().info.run_id == outer.info.run_id
    (inner,) = mlflow.search_runs(
        output_format="list", filter_string=f"tags.mlflow.parentRunId = '{outer.info.run_id}'"
    )
    assert inner.info.status == "FAILED"
    tuned(MLflow(run_id=inner.info.run_id), steps=2)
    again = mlflow.get_run(inner.info.run_id)
    assert again.info.status == "FINISHED"
    assert "objective" in again.data.metrics


@pytest.mark.filterwarnings("ignore:.*noload.*")
def test_mlflow_has_the_later_value_of_a_step_with_the_later_timestamp(mlflow):
    stands = taken_back(MLflow())
    (run,) = mlflow.search_runs(output_format="list")
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "objective")
    latest = {one.step: one.value for one in sorted(found, key=lambda one: one.timestamp)}
    assert [latest[k] for k in range(1, 6)] == [one.value for one in stands]
    assert len(found) == 8
    assert run.data.metrics["objective"] == stands[-1].value


# --- Weights & Biases ------------------------------------------------------------------------------------


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    return package("wandb")


def records_of(folder):
    """What the file of an offline run holds once its writer, another process, is done."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(200):
        records = list(read_records(path))
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise TimeoutError(f"{path} has no end")


def read_records(path):
    """Records of wandb, in the framing of a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, block, whole = path.read_bytes(), 7, 32768, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def read_items(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@with_finding
def test_wandb_gets_history_config_and_findings(wandb, tmp_path):
    solution = tuned(WandB("rates", folder=tmp_path, settings=SETTINGS))
    records = records_of(tmp_path)
    rows = [read_items(record.history.item) for record in records if record.HasField("history")]
    for row, report in zip(rows, solution.history, strict=True):
        assert row["_step"] == report.step
        assert {name: row[name] for name in scalars(report)} == scalars(report)
    config, summary = {}, {}
    for record in records:
        config |= read_items(record.run.config.update) | read_items(record.config.update)
        summary |= read_items(record.summary.update)
    assert (config["start/lr"], config["data"]) == (0.05, "digits (8 x 8)")
    assert summary["findings"].startswith("step 3, ZERO_GRADIENT: warning: ")
    assert summary["result"].startswith("STEPS_DONE")
    (exit_,) = [record.exit for record in records if record.HasField("exit")]
    assert exit_.exit_code == 0


def test_wandb_takes_a_run_of_the_user_and_leaves_it_open(wandb, tmp_path):
    with wandb.init(project="rates", dir=tmp_path, config={"mine": 1}) as run:
        solution = tuned(WandB(run=run), steps=2)
        run.log({"after": 1.0})
        assert run.summary["objective"] == solution.history[-1].value
        assert (run.config["mine"], run.config["horizon"]) == (1, 4)


def test_wandb_keeps_every_row_where_a_step_is_taken_again(wandb, tmp_path):
    stands = taken_back(WandB(folder=tmp_path))
    found = [one.history.item for one in records_of(tmp_path) if one.HasField("history")]
    rows = [read_items(items) for items in found]
    assert [row["_step"] for row in rows] == list(range(1, 9))
    last = {row["outer_step"]: row["objective"] for row in rows}
    assert [last[k] for k in range(1, 6)] == [one.value for one in stands]


def test_wandb_adds_rows_to_those_of_the_user(wandb, tmp_path):
    with wandb.init(project="rates", dir=tmp_path) as run:
        for k in range(7):
            run.log({"mine": k})
        tuned(WandB(run=run), steps=2)
    found = [one.history.item for one in records_of(tmp_path) if one.HasField("history")]
    rows = [read_items(items) for items in found]
    assert [row["_step"] for row in rows] == list(range(9))
    assert [row["outer_step"] for row in rows[7:]] == [1, 2]


def test_wandb_says_that_a_run_failed(wandb, tmp_path):
    tuned(WandB(folder=tmp_path), optim=FAILING, throw=False)
    (exit_,) = [record.exit for record in records_of(tmp_path) if record.HasField("exit")]
    assert exit_.exit_code == 1


# --- Trackio ---------------------------------------------------------------------------------------------


@with_finding
def test_trackio_gets_metrics_config_and_findings(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = package("trackio")
    storage = package("trackio.sqlite_storage")
    solution = tuned(Trackio("rates", name="first", settings=SETTINGS))
    (run,) = trackio.Api().runs("rates")
    rows = storage.SQLiteStorage.get_logs("rates", "first")
    for row, report in zip(rows, solution.history, strict=True):
        assert row["step"] == report.step
        assert {name: row[name] for name in scalars(report)} == scalars(report)
    assert (run.config["start/lr"], run.config["data"]) == (0.05, "digits (8 x 8)")
    alerts = {
        alert["title"]: (alert["level"], alert["step"], alert["text"]) for alert in run.alerts()
    }
    assert alerts["ZERO_GRADIENT"][:2] == ("warn", 3)
    assert alerts["result"][0] == "info"
    assert alerts["result"][2].startswith("STEPS_DONE")


def test_trackio_keeps_every_row_where_a_step_is_taken_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    package("trackio")
    storage = package("trackio.sqlite_storage")
    stands = taken_back(Trackio("rates", name="again"))
    rows = storage.SQLiteStorage.get_logs("rates", "again")
    assert [row["step"] for row in rows] == list(range(1, 9))
    last = {row["outer_step"]: row["objective"] for row in rows}
    assert [last[k] for k in range(1, 6)] == [one.value for one in stands]


# --- TensorBoard, by its own reader ----------------------------------------------------------------------


@with_finding
def test_tensorboard_itself_reads_the_event_file(tmp_path):
    reader = package("tensorboard.backend.event_processing.event_accumulator")
    solution = tuned(TensorBoard(tmp_path, SETTINGS))
    read = reader.EventAccumulator(str(tmp_path)).Reload()
    for name in scalars(solution.history[0]):
        found = [(event.step, event.value) for event in read.Scalars(name)]
        expected = [(report.step, scalars(report)[name]) for report in solution.history]
        assert found == [(step, pytest.approx(number, rel=1e-6)) for step, number in expected]
    assert "finding/ZERO_GRADIENT/text_summary" in read.Tags()["tensors"]
    assert rfho.Result.STEPS_DONE.name in str(read.Tensors("result/text_summary"))


def test_tensorboard_itself_leaves_out_what_was_taken_back(tmp_path):
    reader = package("tensorboard.backend.event_processing.event_accumulator")
    stands = taken_back(TensorBoard(tmp_path))
    read = reader.EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in read.Scalars("objective")]
    assert found == [(one.step, one.value) for one in stands]
    assert [event.step for event in read.Tensors("finding/TAKEN_BACK/text_summary")] == [5]
