"""What a run will write is known beforehand, and refused where the disk has no room for it."""

import datetime
import errno
import time

import jax.numpy as jnp
import optax
import pytest
from disk_faults import file_limit, small_disk
from tuned_runs import Stops

import rfho
from rfho.errors import WriteError
from rfho.files import size_of
from rfho.hyper_gradients import LongReverseHyperGradient, WarmRestartHyperGradient

ALWAYS = datetime.timedelta(0)
SIZE, HORIZON, SEGMENT = 100_000, 60, 5
SEGMENTS = HORIZON // SEGMENT
HYPER = {"lr": 0.01, "l2": 0.1}


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)


def loss(w, hyper, batch):
    return hyper["l2"] * jnp.sum((w - 1) ** 2)


DYNAMICS = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(SIZE, "float32"))
PROBLEM = rfho.Problem(DYNAMICS, lambda w, hyper, batch: jnp.sum(w**2), horizon=HORIZON)


def long(slots=None, shelf=None):
    shelf = rfho.HostShelf() if shelf is None else rfho.DiskShelf(shelf)
    return LongReverseHyperGradient(segment=SEGMENT, slots=slots, shelf=shelf)


def tuned(steps=2, **how):
    return rfho.tune(PROBLEM, HYPER, domain=rfho.Positive(), steps=steps, **how)


def refused(number, work, **how):
    """The sentence of a refusal, which came at once and left no state of a run."""
    begin = time.monotonic()
    with pytest.raises(WriteError) as caught:
        work(**how)
    assert time.monotonic() - begin < 2
    assert caught.value.errno == number
    return str(caught.value)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "1500k") as disk:
        yield disk


class TestForecast:
    @pytest.mark.parametrize("keep", [1, 3])
    def test_it_is_what_is_written(self, tmp_path, keep):
        run = rfho.Run(tmp_path, every=1, keep=keep)
        told = Told(run)
        tuned(steps=keep + 2, run=run, listeners=[told])
        snapshots, history = told.planned
        there = size_of(tmp_path / "snapshots")
        assert 0.9 * there < keep / (keep + 1) * snapshots.size < 1.1 * there
        there = size_of(tmp_path / "history.jsonl", tmp_path / "reports.bin")
        assert 0.75 * there < history.size < 1.25 * there

    def test_pages_are_what_is_kept_of_an_estimate(self, tmp_path):
        run = rfho.Run(tmp_path, every=ALWAYS)
        told = Told(run)
        tuned(steps=1, method=long(), run=run, listeners=[told])
        *_, pages = told.planned
        assert pages.size == pytest.approx(4 * SIZE * (SEGMENTS + 1), rel=0.01)
        assert 0.9 * pages.size < told.most <= 1.01 * pages.size

    def test_what_is_there_already_is_not_counted_again(self, tmp_path):
        run = rfho.Run(tmp_path, keep=1)
        told = Told(run)
        tuned(steps=3, run=run, listeners=[told, Stops(2, KeyboardInterrupt())])
        first = told.planned[0].size
        tuned(steps=3, run=run, listeners=[told])
        assert told.planned[0].size == pytest.approx(0.5 * first, rel=0.1)


class Told(rfho.Listener):
    """Notes what a run has forecast of itself, and how much it has kept of an estimate."""

    def __init__(self, run):
        self.run, self.planned, self.most = run, (), 0
        true = run.written

        def written(*given):
            self.planned = true(*given)
            return self.planned

        run.written = written

    def segment(self, done, total):
        self.most = max(self.most, size_of(self.run.folder / "sweep"))


class TestDisk:
    def test_snapshots_that_do_not_fit(self, disk):
        said = refused(errno.ENOSPC, tuned, run=rfho.Run(disk / "run"))
        assert "1.54 MB free, but this run needs 1.6" in said
        assert "for 4 snapshots" in said
        assert "keep=1 would take 8" in said
        assert list(disk.iterdir()) == []
        assert len(tuned(run=rfho.Run(disk / "run", keep=1)).history) == 2

    def test_states_of_a_long_estimate_that_do_not_fit(self, disk):
        said = refused(errno.ENOSPC, tuned, method=long(shelf=disk))
        assert "4.8 MB for a shelf of 12 states; slots=4 would take 1.6 MB, which does not" in said
        run = rfho.Run(disk / "run", keep=1)
        said = refused(errno.ENOSPC, tuned, method=long(), run=run)
        assert "for pages of an estimate that goes on; slots=4 would take 1.6" in said
        warm = WarmRestartHyperGradient(long(shelf=disk))
        refused(errno.ENOSPC, tuned, method=warm)
        refused(errno.ENOSPC, tuned, method=long(slots=4, shelf=disk))
        assert len(tuned(steps=1, method=long(slots=3, shelf=disk)).history) == 1

    def test_a_single_estimate_too(self, disk):
        how = {"method": long(shelf=disk)}
        refused(errno.ENOSPC, lambda: rfho.hyper_gradient(PROBLEM, HYPER, **how))


class TestLimitOfAFile:
    def test_one_that_would_be_too_large(self, tmp_path):
        with file_limit(100_000):
            said = refused(errno.EFBIG, tuned, run=rfho.Run(tmp_path / "run"))
            assert said.endswith("(ulimit -f) is 100 kB: raise it")
        with file_limit(4_000_000):
            said = refused(errno.EFBIG, tuned, method=long(shelf=tmp_path))
            assert said.endswith("(ulimit -f) is 4 MB: raise it, or give slots=4")
        assert list(tmp_path.iterdir()) == []
