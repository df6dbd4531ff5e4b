"""`retry=`: steps that led to where nothing is finite are taken again, smaller; to the bit when resumed."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tuned_runs import Stops, digest

import rfho
from rfho.checks import Kind
from rfho.errors import Result
from rfho.runs.lines import standing_rows
from rfho.runs.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")

STEPS = 6
RATE = 300.0  # of Adam: steps of the learning rate that are far too long, again and again
CURED = rfho.Retry(times=12, shrink=0.25)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    monkeypatch.setattr("rfho.runs.run.add_course", lambda *_: None)


def loss(w, hyper, batch):
    return jnp.sum((w - batch) ** 2)


def objective(w, hyper, batch):
    return jnp.sum((w - 0.9 * batch) ** 2)


DYNAMICS = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(2))
PROBLEM = rfho.Problem(DYNAMICS, objective, jnp.ones(2), jnp.ones(2), horizon=400)
STARTS = [{"lr": 0.001}, {"lr": 0.2}, {"lr": 0.004}]
HOW = {"optim": optax.adam(RATE), "steps": STEPS, "throw": False}
ONLINE = {"method": rfho.RealTimeHyperGradient(every=50), "domain": rfho.NonNegative()}


def tuned(**how):
    return rfho.tune(PROBLEM, STARTS[0], **(HOW | how))


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Heard(rfho.Listener):
    """Keeps what it is told."""

    def __init__(self):
        self.steps, self.findings = [], []

    def step(self, report):
        self.steps.append((report.step, report.retries))

    def finding(self, finding):
        self.findings.append(finding)


@pytest.fixture(scope="module")
def cured():
    """A run that fails at its second step, and goes back as often as it has to."""
    heard = Heard()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuned(retry=CURED, listeners=[heard]), heard


class TestGoingBack:
    def test_without_it_the_run_fails(self):
        solution = tuned()
        assert solution.result is Result.NON_FINITE_VALUE
        assert [report.step for report in solution.history] == [1]

    def test_it_cures_an_outer_step_that_is_too_long(self, cured):
        solution, _ = cured
        assert solution.result is Result.STEPS_DONE
        assert [report.step for report in solution.history] == list(range(1, STEPS + 1))
        assert solution.history[-1].retries >= 3
        assert solution.best.value < 0.9 * solution.history[0].value

    def test_every_step_is_that_of_an_optimiser_with_a_smaller_rate(self, cured):
        solution, _ = cured
        retries = {report.retries for report in solution.history}
        assert len(retries) == 1  # all steps were taken again, with the last size
        rate = RATE * CURED.shrink ** retries.pop()
        plain = tuned(optim=optax.adam(rate))
        for one, other in zip(solution.history, plain.history, strict=True):
            np.testing.assert_allclose(one.hyper["lr"], other.hyper["lr"], rtol=1e-10)

    def test_every_retry_is_a_finding_with_its_number(self, cured):
        solution, heard = cured
        back = [one for one in heard.findings if one.kind is Kind.TAKEN_BACK]
        assert len(back) == solution.history[-1].retries
        assert "objective is nan at outer step 2" in back[0].message
        assert "outer step 1 is taken again" in back[0].message
        assert "0.25 of their size (retry 1 of 12)" in back[0].message
        assert heard.steps[:3] == [(1, 0), (1, 1), (1, 2)]

    def test_a_budget_that_is_used_up_ends_with_the_diagnosis(self):
        with pytest.raises(rfho.HyperGradientError, match="objective is nan") as caught:
            tuned(retry=rfho.Retry(times=2, shrink=0.5), throw=True)
        assert caught.value.result is Result.NON_FINITE_VALUE
        assert any("retried 2 times" in note for note in caught.value.__notes__)
        assert caught.value.solution.hyper["lr"] == STARTS[0]["lr"]
        assert caught.value.solution.history[-1].retries == 2

    def test_a_start_that_fails_is_not_tried_again(self):
        heard = Heard()
        solution = rfho.tune(PROBLEM, {"lr": 50.0}, **HOW, retry=CURED, listeners=[heard])
        assert solution.result is Result.NON_FINITE_VALUE
        assert Kind.TAKEN_BACK not in {finding.kind for finding in heard.findings}

    def test_a_hyperparameter_that_overflows_is_taken_back_too(self):
        heard = Heard()
        how = {"optim": optax.adam(1000.0), "domain": rfho.Positive(), "steps": 2}
        solution = tuned(retry=CURED, listeners=[heard], **how)  # exp(1000) overflows
        assert solution.result is Result.STEPS_DONE
        first = next(one for one in heard.findings if one.kind is Kind.TAKEN_BACK)
        assert 'hyper["lr"] is not finite after the update at outer step 1' in first.message
        assert heard.steps[0] == (1, 1)

    def test_a_training_that_is_tuned_while_it_goes_on(self, tmp_path):
        """Training under a rate that is too large first blows up, and then fails: two steps back are not enough."""
        heard = Heard()
        how = {"optim": optax.sgd(1e4), "steps": None, "retry": CURED} | ONLINE
        solution = tuned(listeners=[heard], **how)
        assert solution.result is Result.HORIZON_REACHED
        assert [report.stats["t"] for report in solution.history] == list(range(50, 401, 50))
        again = [one.message for one in heard.findings if one.kind is Kind.TAKEN_BACK]
        assert "outer step 2 is taken again" in again[7]
        assert "outer step 1 is taken again" in again[8]
        for _ in heard.steps[:-1]:
            tuned(run=rfho.Run(tmp_path, every=1), listeners=[Next(KeyboardInterrupt())], **how)
        assert digest(tuned(run=rfho.Run(tmp_path), **how)) == digest(solution)

    def test_iterate_gives_a_step_again(self, cured):
        how = {name: value for name, value in HOW.items() if name != "throw"}
        reports = list(rfho.iterate(PROBLEM, STARTS[0], retry=CURED, **how))
        assert [(report.step, report.retries) for report in reports] == cured[1].steps

    def test_of_several_starts_each_goes_back_by_itself(self, cured):
        heard = Heard()
        solutions = rfho.tune_many(PROBLEM, STARTS, **HOW, retry=CURED, listeners=[heard])
        alone = rfho.tune(PROBLEM, STARTS[2], **HOW, retry=CURED)
        assert {one.result for one in solutions} == {Result.STEPS_DONE}
        for one, other in ((solutions[0], cured[0]), (solutions[2], alone)):
            assert len(one.history) == STEPS
            for report, expected in zip(one.history, other.history, strict=True):
                assert report.retries == expected.retries
                np.testing.assert_allclose(report.hyper["lr"], expected.hyper["lr"], rtol=1e-5)

    @pytest.mark.parametrize("change", [{"times": 0}, {"times": 1.5}, {"shrink": 1.0}])
    @pytest.mark.usefixtures("unchecked")
    def test_numbers_that_make_no_sense(self, change):
        with pytest.raises(ValueError, match=next(iter(change))):
            rfho.Retry(**change)


class TestInAFolder:
    def test_interrupted_after_every_report_it_ends_with_the_same_bits(self, tmp_path, cured):
        expected, heard = cured
        for _ in heard.steps[:-1]:
            stops = [Next(KeyboardInterrupt())]
            tuned(retry=CURED, run=rfho.Run(tmp_path, every=1), listeners=stops)
        assert digest(tuned(retry=CURED, run=rfho.Run(tmp_path))) == digest(expected)

    def test_going_on_from_before_the_failure_goes_back_again(self, tmp_path, cured):
        stops = [Stops(1, KeyboardInterrupt())]
        tuned(retry=CURED, run=rfho.Run(tmp_path), listeners=stops)
        assert digest(tuned(retry=CURED, run=rfho.Run(tmp_path))) == digest(cured[0])

    @pytest.mark.parametrize("many", [False, True])
    def test_history_status_and_report_tell_of_it(self, tmp_path, cured, many):
        run = rfho.Run(tmp_path)
        if many:
            rfho.tune_many(PROBLEM, STARTS, **HOW, retry=CURED, run=run)
        else:
            tuned(retry=CURED, run=run)
        written = lines_of(tmp_path / "history.jsonl")
        assert len(written) > STEPS * (3 if many else 1)
        rows = [row for row in RunFolder(tmp_path).history() if row.get("member", 0) == 0]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert rows[-1]["retries"] == cured[0].history[-1].retries
        about = RunFolder(tmp_path).about()
        assert about.status == "finished"
        assert "it went back" in about.reason
        assert "it went back" in (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_a_run_that_failed_goes_on_by_it(self, tmp_path):
        assert tuned(run=rfho.Run(tmp_path)).result is Result.NON_FINITE_VALUE
        solution = tuned(retry=CURED, run=rfho.Run(tmp_path))
        assert solution.result is Result.STEPS_DONE
        steps = [row["step"] for row in RunFolder(tmp_path).history()]
        assert steps == list(range(1, STEPS + 1))

    def test_steps_stay_small_where_retry_is_left_out_later(self, tmp_path, cured):
        tuned(retry=CURED, steps=STEPS - 2, run=rfho.Run(tmp_path))
        assert digest(tuned(run=rfho.Run(tmp_path))) == digest(cured[0])


class Next(Stops):
    """Raises after the first report that it hears."""

    def __init__(self, error):
        super().__init__(0, error)

    def step(self, report):
        raise self.error


def test_rows_of_experiments_stand_as_they_are():
    rows = [{"step": 1, "seed": 0}, {"step": 1, "seed": 1}, {"penalties": 4}, {"step": "last"}]
    assert standing_rows(rows) == rows


def test_a_retry_compiles_nothing_anew():
    traced = []

    def counted(w, hyper, batch):
        traced.append(1)
        return loss(w, hyper, batch)

    dynamics = rfho.Descent(counted, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(2))
    problem = rfho.Problem(dynamics, objective, jnp.ones(2), jnp.ones(2), horizon=400)
    heard = Traces(traced)
    solution = rfho.tune(problem, STARTS[0], **HOW, retry=CURED, listeners=[heard])
    assert solution.result is Result.STEPS_DONE
    assert jax.tree.leaves(heard.seen)[1:] == [heard.seen[1]] * (len(heard.seen) - 1)


class Traces(rfho.Listener):
    """How often the loss had been traced at each report."""

    def __init__(self, traced):
        self.traced, self.seen = traced, []

    def step(self, report):
        self.seen.append(len(self.traced))
