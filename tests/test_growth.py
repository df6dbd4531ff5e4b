"""What many calls and many outer steps leave behind: no program, no descriptor, no memory."""

import gc
import os
import pickle
import subprocess
import sys

import growth
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from killed import TESTS

import rfho
from rfho.outer import History, history


def grown(*arguments: object) -> tuple[int, float, int]:
    """Programs, bytes for each call or step, and descriptors, as `growth.py` says."""
    command = [sys.executable, str(TESTS / "growth.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    programs, memory, descriptors = done.stdout.split()
    return int(programs), float(memory), int(descriptors)


def test_a_report_holds_nothing_of_the_device():
    """A view of a device's array keeps that: 2 kB for a scalar, 5 kB a step."""
    dynamics = rfho.Descent(
        lambda w, h, b: (w - h["a"]) ** 2, lambda h: optax.sgd(0.25), jnp.zeros(())
    )
    problem = rfho.Problem(dynamics, lambda w, h, b: (w - 1) ** 2, horizon=1)
    solution = rfho.tune(problem, {"a": 0.5}, steps=2)
    held = [(report.hyper, report.hypergradient) for report in solution.history]
    leaves = jax.tree.leaves(held)
    assert len(leaves) == 4
    for leaf in leaves:
        assert not isinstance(leaf, jax.Array)
        assert isinstance(leaf, np.generic) or leaf.flags.owndata


@pytest.mark.soak
def test_a_thousand_calls_compile_nothing_after_the_first():
    programs, memory, descriptors = grown("calls", 1000)
    assert (programs, descriptors) == (0, 0)
    assert memory < 1000


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["tune", "many", "iterate", "online", "run"])
def test_memory_does_not_grow_with_outer_steps(kind, tmp_path):
    programs, memory, descriptors = grown("steps", 10**5, kind, *[tmp_path] * (kind == "run"))
    assert (programs, descriptors) == (0, 0)
    assert memory < 10


@pytest.mark.parametrize("kind", ["tune", "many", "iterate", "online", "run"])
def test_outer_steps_leave_no_objects_behind(kind, tmp_path, monkeypatch):
    """The same, counted in objects and bytes of the history, over few steps."""
    total, limit = 300, 4096
    monkeypatch.setattr(history, "_IN_MEMORY", limit)
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)
    counts = Counts(total)
    drive, how = growth.driven(kind, total, [str(tmp_path / "run")] * (kind == "run"))
    ended = drive(listeners=[counts], **({"steps": total} | how))
    assert counts.seen[1] - counts.seen[0] < 20
    for solution in ended if kind == "many" else [ended] * (kind != "iterate"):
        assert len(solution.history) == total
        assert len(solution.history._recent) <= limit
        assert [report.step for report in solution.history] == list(range(1, total + 1))


class Counts(rfho.Listener):
    """How many objects there are in the middle and at the end."""

    def __init__(self, total: int) -> None:
        self.total, self.seen = total, []

    def step(self, report: rfho.outer.Report) -> None:
        if report.member == 0 and report.step in (self.total // 2, self.total - 1):
            gc.collect()
            self.seen.append(len(gc.get_objects()))


class TestHistory:
    """It reads like a tuple of its reports, wherever they lie."""

    @pytest.fixture
    @staticmethod
    def reports():
        hyper = lambda k: {"a": np.arange(3.0) + k, "name": "ridge"}  # noqa: E731
        free = {"a": np.ones(3), "name": None}
        return tuple(
            rfho.outer.Report(k, hyper(k), {"loss": 0.5 * k}, free, {"t": float(k)}, 0.25)
            for k in range(1, 51)
        )

    @pytest.mark.parametrize("limit", [10**6, 700, 1])
    def test_what_goes_in_comes_out(self, reports, limit, monkeypatch):
        monkeypatch.setattr(history, "_IN_MEMORY", limit)
        kept = History(reports)
        assert len(kept) == 50
        assert kept.seconds == 12.5
        for one, other in zip(kept, reports, strict=True):
            assert one._replace(hyper=0, hypergradient=0) == other._replace(
                hyper=0, hypergradient=0
            )
            np.testing.assert_array_equal(one.hyper["a"], other.hyper["a"])
            assert one.hyper["name"] == "ridge"
            assert one.hypergradient["name"] is None
        assert [one.step for one in kept[40::-20]] == [41, 21, 1]
        assert kept[-1].step == 50
        assert [one.step for one in pickle.loads(pickle.dumps(kept))] == list(range(1, 51))
        with pytest.raises(IndexError):
            kept[50]
        kept.cut(30)
        kept.append(reports[30])
        assert [one.step for one in kept] == list(range(1, 32))
        kept.cut(0)
        assert kept == ()

    def test_reports_of_another_form_are_kept_as_they_are(self, reports):
        kept = History(reports[:2])
        kept.append(reports[2]._replace(stats={}))
        kept.append(reports[3])
        assert [(one.step, len(one.stats)) for one in kept] == [(1, 1), (2, 1), (3, 0), (4, 1)]
        kept.cut(3)
        assert len(kept) == 3
        assert kept.seconds == 0.75

    def test_arrays_of_the_device_are_kept_as_they_are(self, reports):
        report = reports[0]._replace(hypergradient={"a": jnp.ones(3), "name": None})
        assert History([report])[0] is report

    def test_a_full_disk_loses_nothing(self, reports, monkeypatch):
        def full(**_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(history, "_IN_MEMORY", 1)
        monkeypatch.setattr(history.tempfile, "TemporaryFile", full)
        assert [one.step for one in History(reports)] == list(range(1, 51))
