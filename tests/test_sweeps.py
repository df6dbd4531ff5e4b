"""An estimate over a long horizon that is interrupted in its middle goes on there, and ends with the same bits."""

import datetime
import os
import signal
import warnings
from pathlib import Path

import jax
import pytest
from mutations import damaged
from tuned_runs import DOMAIN, OPTIM, digest, hyper, problem

import rfho
from rfho.errors import DataFormatError, Result, WriteError
from rfho.hyper_gradients import LongReverseHyperGradient, Watch
from rfho.runs import Run

STEPS, SEGMENTS = 3, 4
ALWAYS = datetime.timedelta(0)


class Segments(rfho.Listener):
    """Counts segments, and does something after one of them."""

    def __init__(self, at: int = -1, act=None) -> None:
        self.at, self.act, self.seen = at, act, []

    def segment(self, done: int, total: int) -> None:
        self.seen.append(done)
        if len(self.seen) == self.at:
            self.act()


def tune(method=None, **how) -> rfho.Solution:
    method = method or LongReverseHyperGradient(segment=3)
    given = {"optim": OPTIM, "domain": DOMAIN, "steps": STEPS}
    return rfho.tune(problem(), hyper(), method=method, **given | how)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)


@pytest.fixture(scope="module")
def whole() -> str:
    return digest(tune())


class TestInterrupted:
    @pytest.mark.parametrize("at", range(2 * SEGMENTS + 1, 4 * SEGMENTS))
    def test_after_any_segment_only_the_rest_is_done(self, tmp_path, whole, at):
        first, rest = Segments(at, ctrl_c), Segments()
        part = tune(run=Run(tmp_path, every=100), listeners=[first])
        assert (part.result, len(part.history)) == (Result.STOPPED, 1)
        assert digest(tune(run=Run(tmp_path), listeners=[rest])) == whole
        # At most one segment is run again: that from the last state on the shelf, to where objectives are read.
        assert len(first.seen) + len(rest.seen) <= 2 * SEGMENTS * STEPS + 1
        assert not (tmp_path / "sweep").exists()

    def test_pages_that_are_cleared_while_they_are_looked_for_count_for_nothing(
        self, tmp_path, whole, monkeypatch
    ):
        def gone(*_):
            raise FileNotFoundError(2, "No such file or directory")

        monkeypatch.setattr("rfho.runs.sweeps.load_snapshot", gone)
        assert digest(tune(run=Run(tmp_path))) == whole

    def test_the_second_signal_keeps_nothing_more(self, tmp_path, whole):
        def twice() -> None:
            ctrl_c()
            ctrl_c()

        tune(run=Run(tmp_path, every=100), listeners=[Segments(12, twice)])
        assert not (tmp_path / "sweep").exists()
        assert digest(tune(run=Run(tmp_path))) == whole

    def test_with_few_slots_the_way_forward_is_run_again(self, tmp_path):
        method = LongReverseHyperGradient(segment=3, slots=2)
        expected = digest(tune(method))
        rest = Segments()
        tune(method, run=Run(tmp_path, every=100), listeners=[Segments(15, ctrl_c)])
        assert digest(tune(method, run=Run(tmp_path), listeners=[rest])) == expected
        assert len(rest.seen) == SEGMENTS + 1 + 2 * SEGMENTS

    def test_after_warm_restarts(self, tmp_path):
        method = rfho.WarmRestartHyperGradient(LongReverseHyperGradient(segment=3))
        expected = digest(tune(method))
        rest = Segments()
        tune(method, run=Run(tmp_path, every=100), listeners=[Segments(14, ctrl_c)])
        assert digest(tune(method, run=Run(tmp_path), listeners=[rest])) == expected
        assert len(rest.seen) <= 2 * SEGMENTS + 3

    def test_kept_all_the_time_it_is_the_same(self, tmp_path, whole):
        assert digest(tune(run=Run(tmp_path, every=ALWAYS))) == whole


class TestPages:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        tune(run=Run(tmp_path, every=100), listeners=[Segments(14, ctrl_c)])
        return tmp_path

    def test_what_is_kept(self, folder):
        pages = sorted(path.name for path in (folder / "sweep").iterdir())
        assert pages == ["state-1", "state-2", "state-3", "way-back"]

    @pytest.mark.parametrize("seed", range(6))
    def test_damaged_ones_are_done_again(self, folder, whole, seed):
        for number, path in enumerate(sorted((folder / "sweep").rglob("*.*"))):
            path.write_bytes(damaged(path.read_bytes(), seed + number))
        assert digest(tune(run=Run(folder))) == whole

    @pytest.mark.soak
    @pytest.mark.parametrize("seed", range(6, 200))
    def test_hundreds_of_damaged_ones_are_done_again(self, folder, whole, seed):
        for number, path in enumerate(sorted((folder / "sweep").rglob("*.*"))):
            path.write_bytes(damaged(path.read_bytes(), seed + number))
        assert digest(tune(run=Run(folder))) == whole

    def test_swapped_ones_are_done_again(self, folder, whole):
        one, other = (folder / "sweep" / f"state-{i}" for i in (1, 3))
        one.rename(folder / "kept")
        other.rename(one)
        (folder / "kept").rename(other)
        assert digest(tune(run=Run(folder))) == whole

    @pytest.mark.parametrize("name", ["sweep", "sweep/state-1", "sweep/way-back"])
    def test_no_link_is_followed(self, folder, tmp_path_factory, whole, name):
        elsewhere = tmp_path_factory.mktemp("outside") / "elsewhere"
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)
        before = sorted(path.name for path in elsewhere.rglob("*"))
        try:
            assert digest(tune(run=Run(folder, every=ALWAYS))) == whole
        except DataFormatError as error:
            assert "link" in str(error)  # noqa: PT017 (or it is done again)
        assert sorted(path.name for path in elsewhere.rglob("*")) == before

    def test_those_of_another_estimate_are_not_taken(self, folder):
        """The outer optimiser is another one: what was kept of its step does not count."""
        optim = rfho.optim.adam(0.05)
        names = ["optim", "jit", "step_size"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = tune(
                optim=optim, run=Run(folder, allow=["settings", "functions", "data", *names])
            )
        assert len(part.history) == STEPS

    def test_a_full_disk_ends_the_run_as_failed(self, tmp_path, monkeypatch, whole):
        def full(*args, **named):
            raise WriteError(28, "No space left on device")

        monkeypatch.setattr("rfho.runs.sweeps.save_snapshot", full)
        with pytest.raises(WriteError, match="No space"):
            tune(run=Run(tmp_path, every=ALWAYS))
        monkeypatch.undo()
        monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)
        assert digest(tune(run=Run(tmp_path))) == whole


def test_who_watches_is_no_reason_to_compile_again():
    method = LongReverseHyperGradient(segment=3)
    assert hash(Watch()) == hash(Watch())
    tune(method, steps=1)
    with jax.log_compiles(), warnings.catch_warnings(record=True):
        before = compiled()
        tune(method, steps=1)
        assert compiled() == before


def compiled() -> int:
    """How many programs there are in JAX's caches of this library's steps."""
    from rfho.outer import tuner

    return tuner._updated_compiled._cached._cache_size()
