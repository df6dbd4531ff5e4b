"""Optuna outside, hypergradients inside; with the real Optuna."""

import dataclasses
import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfho
from rfho.adapters.equal_functions import with_first_functions
from rfho.adapters.optuna import refine, suggest

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)

import optuna_study  # noqa: E402

HYPER = {"lr": 0.1, "l2": 0.1, "words": "a word"}
OPTIM = optax.sgd(0.01)

# Rates are drawn over several powers of ten, and outer steps are as long as tests are short.
pytestmark = pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")


def error(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def loss(w, hyper, batch):
    return error(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)


def problem_of(loss=loss, horizon=4):
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(3))
    return rfho.Problem(dynamics, error, jnp.ones(3), jnp.full(3, 2.0), horizon)


PROBLEM = problem_of()


class Never(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return False


class AtThird(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.last_step == 3


def study_of(pruner=None, **options):
    return optuna.create_study(
        pruner=pruner or Never(), sampler=optuna.samplers.RandomSampler(0), **options
    )


def refined(trial, problem=PROBLEM, hyper=HYPER, **options):
    return refine(trial, problem, hyper, **{"optim": OPTIM, "steps": 5} | options)


def of(study, objective, trials=1):
    study.optimize(objective, n_trials=trials)
    return study.trials


# --- Refining --------------------------------------------------------------------------------------------


def test_a_trial_hears_every_step_and_keeps_the_best():
    expected = rfho.tune(PROBLEM, HYPER, optim=OPTIM, steps=5)
    (trial,) = of(study_of(), lambda trial: refined(trial).best.value)
    assert trial.intermediate_values == {report.step: report.value for report in expected.history}
    assert trial.value == expected.best.value
    attributes = trial.user_attrs
    assert attributes["hyper/lr"] == expected.best.hyper["lr"]
    assert attributes["hyper/words"] == "a word"
    assert attributes["objective"] == expected.best.value
    assert attributes["result"].startswith("STEPS_DONE")
    assert attributes["steps"] == 5


def test_the_pruner_ends_a_run_and_what_was_found_is_kept():
    heard, solutions = [], []

    class Heard(rfho.Listener):
        def step(self, report):
            heard.append(report.step)

        def close(self, result):
            heard.append(result.name)

    def objective(trial):
        try:
            return refined(trial, listeners=[Heard()]).best.value
        except optuna.TrialPruned as error:
            solutions.append(error.solution)
            raise

    (trial,) = of(study_of(AtThird()), objective)
    assert trial.state.name == "PRUNED"
    assert heard == [1, 2, 3, "STOPPED"]
    assert len(solutions[0].history) == 3
    assert trial.user_attrs["hyper/lr"] == solutions[0].best.hyper["lr"]


def test_a_run_that_fails_prunes_its_trial_and_the_study_goes_on():
    def objective(trial):
        lr = trial.suggest_categorical("lr", [1e200, 0.1])
        return refined(trial, hyper=HYPER | {"lr": lr}).best.value

    study = study_of()
    study.enqueue_trial({"lr": 1e200})
    study.enqueue_trial({"lr": 0.1})
    failed, complete = of(study, objective, trials=2)
    assert failed.state.name == "PRUNED"
    assert failed.user_attrs["result"].startswith("NON_FINITE_VALUE")
    assert complete.state.name == "COMPLETE"


def test_a_run_that_is_taken_back_is_heard_once_a_step():
    how = {"optim": optax.sgd(1e4), "retry": rfho.Retry(times=20)}
    solutions = []

    def objective(trial):
        solutions.append(refined(trial, **how))
        return solutions[0].best.value

    (trial,) = of(study_of(), objective)
    assert solutions[0].history[-1].retries > 0
    assert trial.state.name == "COMPLETE"
    assert list(trial.intermediate_values) == [1, 2, 3, 4, 5]
    assert trial.user_attrs["steps"] == 5


def test_an_error_of_the_user_fails_the_trial():
    def broken(t):
        raise OSError("the file is gone")

    def objective(trial):
        data = rfho.HostStream(broken, example=np.ones(3))
        problem = rfho.Problem(PROBLEM.dynamics, error, data, jnp.ones(3), 2)
        return refined(trial, problem).best.value

    study = study_of()
    with pytest.raises(Exception, match="the file is gone"):
        of(study, objective)
    assert study.trials[0].state.name == "FAIL"


def test_misuse_is_said_before_anything_runs():
    with pytest.raises(
        ValueError, match=r"maximises: write optuna.create_study\(direction='minimize'\)"
    ):
        of(study_of(direction="maximize"), lambda trial: refined(trial).best.value)
    with pytest.raises(ValueError, match="steps"):
        of(study_of(), lambda trial: refined(trial, steps=0).best.value)


def test_ctrl_c_ends_the_study():
    class Interrupting(rfho.Listener):
        def step(self, report):
            raise KeyboardInterrupt

    study = study_of()
    with pytest.raises(KeyboardInterrupt) as caught:
        of(study, lambda trial: refined(trial, listeners=[Interrupting()]).best.value, trials=3)
    assert len(study.trials) == 1
    assert len(caught.value.solution.history) == 1


def test_a_study_of_several_objectives_is_served_without_pruning():
    def objective(trial):
        solution = refined(trial)
        return solution.best.value, float(solution.best.hyper["l2"])

    (trial,) = of(study_of(directions=["minimize", "minimize"]), objective)
    assert trial.state.name == "COMPLETE"
    assert trial.intermediate_values == {}


def test_a_fixed_trial_will_do():
    trial = optuna.trial.FixedTrial({})
    assert refined(trial).best.value == pytest.approx(trial.user_attrs["objective"])


def test_large_arrays_are_named_and_not_stored():
    problem = problem_of(
        lambda w, hyper, batch: error(w, hyper, batch) + jnp.sum(hyper["w"]) * w[0]
    )
    hyper = {"lr": 0.1, "w": jnp.zeros(2000), "v": jnp.zeros(2)}
    problem = rfho.Problem(
        problem.dynamics,
        lambda w, h, b: error(w, h, b) + jnp.sum(h["v"]),
        jnp.ones(3),
        jnp.ones(3),
        2,
    )
    trial = optuna.trial.FixedTrial({})
    refined(trial, problem, hyper, steps=1)
    assert trial.user_attrs["hyper/w"] == "float64[2000]"
    assert trial.user_attrs["hyper/v"] == pytest.approx([-0.01, -0.01])


# --- Nothing is compiled twice ---------------------------------------------------------------------------


def test_trials_of_equal_structure_share_their_programs():
    traced = []
    note = traced.append

    def objective(trial):
        power = trial.suggest_categorical("power", [2, 4])

        def scored(w, hyper, batch):
            return jnp.mean(jnp.abs(w - batch) ** power)

        def counted(w, hyper, batch):
            note(power)
            return scored(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)

        dynamics = rfho.Descent(counted, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(3))
        problem = rfho.Problem(dynamics, scored, jnp.ones(3), jnp.full(3, 2.0), horizon=4)
        hyper = suggest(trial, {"lr": 0.1, "l2": 0.1}, rfho.Box(1e-3, 0.2))
        options = {"optim": optax.adam(0.02), "domain": rfho.Box(1e-3, 0.3)}
        return refined(trial, problem, hyper, **options).best.value

    study = study_of()
    for power in (2, 4):
        study.enqueue_trial({"power": power})
    of(study, objective, trials=2)
    once = len(traced)
    assert set(traced) == {2, 4}
    trials = of(study, objective, trials=6)
    assert {trial.params["power"] for trial in trials[2:]} == {2, 4}
    assert len({trial.value for trial in trials}) == 8
    assert len(traced) == once


def made(rate, inner=error):
    return lambda w, hyper, batch: rate * inner(w, hyper, batch)


def with_default(rate):
    def function(w, hyper, batch, rate=rate):
        return rate * w

    return function


def with_keyword(rate):
    def function(w, *, rate=rate):
        return rate * w

    return function


def recursive(depth):
    def function(n):
        return 0 if n > depth else 1 + function(n + 1)

    return function


def before_its_variable_is_bound():
    function = lambda: later  # noqa: E731
    found = with_first_functions(function)
    later = 1
    return found, later


class Trainer:
    def __init__(self, width):
        self.width = width

    def loss(self, w, hyper, batch):
        return self.width * w


@dataclasses.dataclass(frozen=True)
class Settings:
    width: int


ARRAY = jnp.arange(3.0)
LARGE = jnp.zeros(2**18)
PAIRS = {
    "a number": (made, 0.1, 0.1, 0.2),
    "a kind of number": (made, 1, 1, 1.0),
    "a bool": (made, 1, 1, True),
    "a sign": (made, 0.0, 0.0, -0.0),
    "a tuple": (made, (1, (2.0, "x")), (1, (2.0, "x")), (1, (2.0, "y"))),
    "a list": (made, [1], [1], [2]),
    "a dictionary": (made, {"a": jnp.tanh}, {"a": jnp.tanh}, {"a": jnp.sin}),
    "a function": (made, made(2), made(2), made(3)),
    "a library's function": (made, optax.l2_loss, optax.l2_loss, optax.huber_loss),
    "a small array": (made, ARRAY, ARRAY + 0, ARRAY + 1),
    "an array of NumPy": (made, np.ones(2), np.ones(2), np.ones(2, np.float32)),
    "a large array": (made, LARGE, LARGE, LARGE + 0),
    "frozen settings": (made, Settings(3), Settings(3), Settings(4)),
    "an optimiser": (lambda rate: optax.adam(rate).update, 0.1, 0.1, 0.2),
    "a partial": (lambda batch: functools.partial(loss, batch=batch), 1, 1, 2),
    "a default": (with_default, 1, 1, 2),
    "a keyword": (with_keyword, 1, 1, 2),
    "itself": (recursive, 3, 3, 4),
    "a module": (lambda upper: made(rfho.Box(0.0, upper)), 1.0, 1.0, 2.0),
    "the code": (lambda which: (error, loss)[which], 0, 0, 1),
}


@pytest.mark.parametrize("name", PAIRS)
def test_functions_become_one_if_they_do_the_same(name):
    function, one, same, other = PAIRS[name]
    first = with_first_functions(function(one))
    assert with_first_functions(function(same)) is first
    assert with_first_functions(function(other)) is not first


def test_an_object_that_can_change_unnoticed_is_not_shared():
    trainer = Trainer(8)
    first = with_first_functions(trainer.loss)
    trainer.width = 16
    again = trainer.loss
    assert with_first_functions(again) is again is not first


def test_a_container_that_has_changed_is_seen():
    layers = [8]
    first = with_first_functions(made(layers))
    layers[0] = 16
    second = with_first_functions(made(layers))
    third = with_first_functions(made([8]))
    assert len({first, second, third}) == 3  # the first one computes with 16 by now


WIDTH = 8


def reads_a_global():
    return lambda w: WIDTH * w


def test_names_of_the_own_module_are_seen(monkeypatch):
    first = with_first_functions(reads_a_global())
    assert with_first_functions(reads_a_global()) is first
    monkeypatch.setattr(sys.modules[__name__], "WIDTH", 16)
    assert with_first_functions(reads_a_global()) is not first


def test_a_variable_that_is_not_bound_yet_does_no_harm():
    found, later = before_its_variable_is_bound()
    assert found() == later


# --- Suggesting ------------------------------------------------------------------------------------------


def test_values_are_suggested_between_bounds_and_the_rest_stays():
    hyper = {
        "lr": 0.1,
        "mix": np.float32(0.5),
        "penalties": jnp.ones((2, 2)),
        "layers": 3,
        "beta": 0.9,
    }
    domain = {
        "lr": rfho.Box(1e-4, 1.0),
        "mix": rfho.UnitInterval(),
        "penalties": rfho.Box(np.array([0.5, 1.0]), 2.0),
        "layers": rfho.Reals(),
        "beta": rfho.Fixed(),
    }
    seen = []

    def objective(trial):
        seen.append(suggest(trial, hyper, domain))
        return 0.0

    (trial,) = of(study_of(), objective)
    (found,) = seen
    assert (found["layers"], found["beta"]) == (3, 0.9)
    assert found["lr"] == trial.params["lr"]
    assert type(found["lr"]) is float
    assert found["mix"].dtype == np.float32
    assert float(found["mix"]) == np.float32(trial.params["mix"])
    assert found["penalties"].tolist() == [
        [trial.params[f"penalties/{i}/{j}"] for j in range(2)] for i in range(2)
    ]
    log = {name: distribution.log for name, distribution in trial.distributions.items()}
    assert log["lr"]
    assert not log["mix"]
    assert not log["penalties/0/0"]
    lows = {trial.distributions[f"penalties/{i}/{j}"].low for i in range(2) for j in range(2)}
    assert lows == {0.5, 1.0}


@given(st.floats(1e-8, 1e8), st.floats(1e-8, 1e8), st.integers(0, 3))
def test_what_is_suggested_lies_in_its_domain(one, other, seed):
    domain = rfho.Box(min(one, other), max(one, other))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    found = suggest(study.ask(), {"x": 1.0}, domain)
    assert min(one, other) <= found["x"] <= max(one, other)


@pytest.mark.parametrize(
    "domain", [rfho.Positive(), rfho.Box(0.0, np.inf), rfho.Simplex(), rfho.Reals()]
)
def test_a_domain_without_bounds_is_refused_by_name(domain):
    with pytest.raises(ValueError, match=r"penalty/l2 has the domain .* give suggest a rfho.Box"):
        suggest(optuna.trial.FixedTrial({}), {"penalty": {"l2": jnp.ones(2)}}, domain)


# --- A study that is killed ------------------------------------------------------------------------------


def test_a_killed_study_goes_on_and_its_trials_are_as_they_were(tmp_path):
    database = tmp_path / "study.db"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, optuna_study.__file__, str(database), "1000"],
        env=os.environ | {"PYTHONPATH": path, "JAX_ENABLE_X64": "1"},
    )
    try:
        wait_until_a_trial_is_under_way(database, process, after=4)
    finally:
        process.kill()
        process.wait()
    before = optuna_study.study_of(database).trials
    assert all(trial.state.is_finished() for trial in before[:-1])
    killed = before[-1]
    assert killed.state.name == "RUNNING"
    time.sleep(3)  # the grace period, after which the heart is known to have stopped
    study = optuna_study.study_of(database)
    study.optimize(optuna_study.objective, n_trials=4)
    for now, then in zip(study.trials, before[:-1], strict=False):
        assert (now.value, now.intermediate_values) == (then.value, then.intermediate_values)
    assert study.trials[killed.number].state.name == "FAIL"
    (again,) = [t for t in study.trials if t.system_attrs.get("failed_trial") == killed.number]
    assert again.params == killed.params
    for step, value in killed.intermediate_values.items():
        assert again.intermediate_values[step] == pytest.approx(value, rel=1e-12)
    best = study.best_trial
    unrefined = [
        float(rfho.train(optuna_study.problem_of(t.params["power"]), started(t)).value)
        for t in study.trials
        if t.state.name == "COMPLETE"
    ]
    assert best.value < min(unrefined)


def started(trial):
    return {name: jnp.asarray(trial.params[name]) for name in ("lr", "l2")}


def wait_until_a_trial_is_under_way(database, process, *, after):
    """Until a trial with a few reports is running, and some have finished."""
    for _ in range(2400):
        assert process.poll() is None
        time.sleep(0.05)
        if not database.exists():
            continue
        try:
            trials = optuna.load_study(study_name="powers", storage=f"sqlite:///{database}").trials
        except Exception:
            continue
        if (
            len(trials) > after
            and 2 <= len(trials[-1].intermediate_values) <= optuna_study.STEPS / 2
        ):
            return
    raise TimeoutError("no trial was ever under way")
