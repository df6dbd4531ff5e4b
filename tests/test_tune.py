"""The outer loop: what it reports, when it ends, and what it says of its end."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.hyper_gradients import OnlineTruncatedHyperGradient, RealTimeHyperGradient

HYPER = {"lr": 0.05, "l2": 0.3}


def error(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def loss(w, hyper, batch):
    return error(w, hyper, batch) + hyper["l2"] * w**2


def optim(hyper):
    return optax.sgd(hyper["lr"])


def problem_of(loss=loss, objective=error, valid=2.0, horizon=4, optim=optim):
    dynamics = rfho.Descent(loss, optim, jnp.zeros(()))
    valid = valid if callable(valid) else jnp.asarray(valid)
    return rfho.Problem(dynamics, objective, jnp.ones(3), valid, horizon)


PROBLEM = problem_of()
OUTER = optax.sgd(0.02)


def test_the_history_says_what_each_step_saw_and_made():
    solution = rfho.tune(PROBLEM, HYPER, optim=OUTER, steps=4)
    assert [report.step for report in solution.history] == [1, 2, 3, 4]
    assert solution.result is rfho.Result.STEPS_DONE
    before = HYPER
    for report in solution.history:
        estimate = rfho.hyper_gradient(PROBLEM, before)
        assert report.value == pytest.approx(float(estimate.value), rel=1e-13)
        for name, leaf in before.items():
            g = float(estimate.hypergradient[name])
            assert report.hypergradient[name] == pytest.approx(g, rel=1e-12)
            assert report.hyper[name] == pytest.approx(leaf - 0.02 * g, rel=1e-12)
        assert report.seconds > 0
        assert set(report.stats) == {"seed_norm", "adjoint_norm", "rounding"}
        before = report.hyper
    last = rfho.hyper_gradient(PROBLEM, before)
    assert solution.hyper == before
    assert float(solution.value) == pytest.approx(float(last.value), rel=1e-13)
    assert float(solution.params) == pytest.approx(float(last.aux.params), rel=1e-13)
    assert isinstance(solution.history[0].value, float)
    assert isinstance(solution.history[0].hyper["lr"], np.ndarray)


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")  # a penalty sits on zero
def test_the_objective_falls():
    solution = rfho.tune(PROBLEM, HYPER, optim=OUTER, steps=30, domain=rfho.NonNegative())
    values = [report.value for report in solution.history]
    assert values == sorted(values, reverse=True)
    assert solution.value < values[-1] < 0.9 * values[0]


def test_nothing_is_traced_again_however_many_steps():
    def traces_of(steps):
        traces = []

        def counted(w, hyper, batch):
            traces.append(1)
            return loss(w, hyper, batch)

        rfho.tune(problem_of(counted), HYPER, optim=OUTER, steps=steps)
        return len(traces)

    assert 0 < traces_of(8) == traces_of(2)


def test_iterate_is_tune_as_a_loop():
    solution = rfho.tune(PROBLEM, HYPER, optim=OUTER, steps=3)
    reports = list(rfho.iterate(PROBLEM, HYPER, optim=OUTER, steps=3))
    assert [report.step for report in reports] == [1, 2, 3]
    for report, other in zip(reports, solution.history, strict=True):
        assert report.value == other.value
        assert report.hyper == other.hyper
        assert report.hypergradient == other.hypergradient


def test_iterate_may_be_left_early():
    reports = rfho.iterate(PROBLEM, HYPER, optim=OUTER, steps=10**9)
    assert next(report.step for report in reports if report.step > 2) == 3


# --- Ends ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")  # a penalty sits on zero
def test_a_run_that_moves_no_more_has_converged():
    solution = rfho.tune(
        PROBLEM, HYPER, optim=OUTER, steps=1000, tolerance=1e-4, domain=rfho.UnitInterval()
    )
    assert solution.result is rfho.Result.CONVERGED
    *_, before, last = [np.array(list(report.hyper.values())) for report in solution.history]
    assert np.linalg.norm(last - before) <= 1e-4 * (1 + np.linalg.norm(before))
    assert 2 < len(solution.history) < 1000


def test_a_run_whose_squares_overflow_is_not_called_converged():
    dynamics = rfho.Descent(
        lambda w, hyper, batch: w**2, lambda hyper: optax.sgd(0.1), jnp.zeros(())
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: 1e-131 * hyper["far"], horizon=1)
    how = {"optim": optax.sgd(1e300), "steps": 3, "tolerance": 1e-3}
    solution = rfho.tune(problem, {"far": 1e170}, **how)  # each step moves it by a tenth
    assert solution.result is rfho.Result.STEPS_DONE
    assert rfho.tune(problem, {"far": 1e180}, **how).result is rfho.Result.CONVERGED


def test_without_a_tolerance_no_run_is_called_converged():
    still = rfho.tune(PROBLEM, HYPER, optim=optax.sgd(0.0), steps=2)
    assert still.result is rfho.Result.STEPS_DONE


@pytest.mark.parametrize(
    "method", [RealTimeHyperGradient(2), OnlineTruncatedHyperGradient(window=1, every=2)]
)
def test_an_online_run_ends_with_its_horizon(method):
    problem = problem_of(horizon=7)
    solution = rfho.tune(problem, HYPER, method=method, optim=OUTER)
    assert solution.result is rfho.Result.HORIZON_REACHED
    assert [report.stats["t"] for report in solution.history] == [2, 4, 6]
    assert solution.value == pytest.approx(float(problem.evaluate(solution.params, solution.hyper)))
    shorter = rfho.tune(problem, HYPER, method=method, optim=OUTER, steps=2)
    assert shorter.result is rfho.Result.STEPS_DONE
    assert len(shorter.history) == 2


def test_an_online_run_that_would_never_update_is_refused():
    with pytest.raises(ValueError, match="would never update: lower every, or raise horizon"):
        rfho.tune(PROBLEM, HYPER, method=RealTimeHyperGradient(5))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [0, -3, True, 2.0])
def test_the_number_of_steps_must_be_a_positive_int(steps):
    with pytest.raises(ValueError, match="it must be an int of 1 or more"):
        rfho.tune(PROBLEM, HYPER, steps=steps)


def overflowing(w, hyper, batch):
    return jnp.exp(jnp.exp(-hyper["l2"])) * error(w, hyper, batch)


def without_a_second_derivative():
    """|w|^1.5 at w = 0: training stays there, and the way back is infinite."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: hyper["l2"] * jnp.sum(jnp.abs(w) ** 1.5),
        lambda hyper: optax.sgd(hyper["lr"]),
        jnp.zeros(3),
    )
    return rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum((w - 1) ** 2), None, None, 3)


FAILURES = {
    rfho.Result.NON_FINITE_VALUE: (PROBLEM, HYPER | {"lr": 1e200}, OUTER),
    rfho.Result.NON_FINITE_HYPERGRADIENT: (without_a_second_derivative(), HYPER, OUTER),
    rfho.Result.NON_FINITE_HYPER: (PROBLEM, HYPER, optax.scale(float("inf"))),
}


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
@pytest.mark.parametrize("result", FAILURES, ids=lambda result: result.name)
def test_what_becomes_non_finite_is_raised_or_returned(result):
    problem, hyper, optim = FAILURES[result]
    with pytest.raises(rfho.HyperGradientError, match="outer step 1") as caught:
        rfho.tune(problem, hyper, optim=optim, steps=2)
    assert caught.value.result is result
    solution = rfho.tune(problem, hyper, optim=optim, steps=2, throw=False)
    assert solution.result is result
    assert result.failed
    assert solution.hyper == hyper
    assert solution.history == ()


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
def test_after_a_failure_the_last_good_hyperparameters_are_returned():
    """The outer rate throws λ where f overflows: λ is finite there, and of no use."""
    start = {"lr": 0.05, "l2": 0.0}
    solution = rfho.tune(
        problem_of(objective=overflowing), start, optim=optax.sgd(-1e3), steps=9, throw=False
    )
    assert solution.result is rfho.Result.NON_FINITE_VALUE
    assert len(solution.history) >= 1
    assert np.isfinite(solution.value)


def test_an_interrupt_ends_the_run_after_a_whole_step():
    program = textwrap.dedent("""
        import signal
        import jax.numpy as jnp, optax, rfho

        # A process started in the background inherits a SIGINT that is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        class Shout(rfho.Listener):
            def step(self, report):
                if report.step == 5:
                    print("running", flush=True)

        dynamics = rfho.Descent(
            lambda w, h, b: (w - 1) ** 2, lambda h: optax.sgd(h), jnp.zeros(())
        )
        problem = rfho.Problem(dynamics, lambda w, h, b: w**2, None, None, horizon=2)
        solution = rfho.tune(problem, 0.1, optim=optax.sgd(1e-6), steps=10**7, listeners=[Shout()])
        steps = [report.step for report in solution.history]
        assert steps == list(range(1, len(steps) + 1)), steps
        assert solution.history[-1].hyper == solution.hyper
        print(solution.result.name, len(steps) >= 5, flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    ) as child:
        assert child.stdout.readline() == "running\n", child.stderr.read()
        child.send_signal(signal.SIGINT)
        try:
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert out == "STOPPED True\n", err
    assert child.returncode == 0


# --- Domains, fixed leaves, objectives, data -------------------------------------------------------------


def test_fixed_leaves_keep_value_and_type_whatever_they_are():
    def powered(w, hyper, batch):
        sign = jnp.where(hyper["flip"], -1.0, 1.0)
        return error(w, hyper, batch) + hyper["l2"] * sign * w ** hyper["power"]

    hyper = HYPER | {"power": 2, "flip": False}
    domain = {name: rfho.Fixed() for name in hyper} | {"lr": rfho.Positive()}
    solution = rfho.tune(problem_of(powered), hyper, optim=OUTER, domain=domain, steps=3)
    learned_alone = rfho.tune(
        problem_of(lambda w, lr, batch: loss(w, HYPER | {"lr": lr}, batch), optim=optax.sgd),
        HYPER["lr"],
        optim=OUTER,
        domain=rfho.Positive(),
        steps=3,
    )
    assert solution.hyper["lr"] == pytest.approx(float(learned_alone.hyper), rel=1e-12)
    assert solution.hyper["lr"] != HYPER["lr"]
    assert float(solution.hyper["l2"]) == HYPER["l2"]
    assert solution.hyper["power"] == 2
    assert type(solution.hyper["power"]) is int
    assert solution.hyper["flip"] is False
    assert solution.history[0].hypergradient["power"] is None


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
def test_every_iterate_is_in_its_domain():
    domain = {"lr": rfho.Box(0.01, 0.06), "l2": rfho.NonNegative()}
    solution = rfho.tune(PROBLEM, HYPER, optim=optax.sgd(0.5), domain=domain, steps=3)
    assert all(0.01 <= report.hyper["lr"] <= 0.06 for report in solution.history)
    assert all(report.hyper["l2"] >= 0 for report in solution.history)
    assert solution.history[-1].hyper["lr"] == 0.06


def test_hyperparameters_may_follow_objectives_of_their_own():
    """The rate against the training data, the penalty against the validation data."""
    objective = {"lr": rfho.Objective(error, jnp.ones(3)), "l2": error}
    both = rfho.tune(problem_of(objective=objective), HYPER, optim=OUTER, steps=1).history[0]
    for name, target in (("lr", 1.0), ("l2", 2.0)):
        alone = rfho.hyper_gradient(problem_of(valid=target), HYPER)
        assert both.value[name] == pytest.approx(float(alone.value), rel=1e-12)
        expected = float(alone.hypergradient[name])
        assert both.hypergradient[name] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "valid",
    [lambda k: 2.0 + k, rfho.Stream(jnp.arange(6.0), size=2, key=0)],
    ids=["function", "stream"],
)
def test_each_outer_step_may_see_a_validation_batch_of_its_own(valid):
    problem = problem_of(valid=valid)
    reports = list(rfho.iterate(problem, HYPER, optim=optax.sgd(0.0), steps=3))
    values = [report.value for report in reports]
    params = rfho.hyper_gradient(problem, HYPER).aux.params
    expected = [float(error(params, HYPER, valid(k))) for k in range(3)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert len(set(values)) == 3


# --- Progress --------------------------------------------------------------------------------------------


class Heard(rfho.Listener):
    """Writes down what it is told."""

    def __init__(self):
        self.said = []

    def start(self, run):
        self.said.append(("start", run.total))

    def step(self, report):
        self.said.append(("step", report.step))

    def close(self, result):
        self.said.append(("close", result.name))


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
def test_a_listener_hears_start_steps_and_close_even_after_an_error():
    heard = Heard()
    rfho.tune(PROBLEM, HYPER, optim=OUTER, steps=2, listeners=[heard])
    assert heard.said == [("start", 2), ("step", 1), ("step", 2), ("close", "STEPS_DONE")]
    heard = Heard()
    with pytest.raises(rfho.HyperGradientError):
        rfho.tune(PROBLEM, HYPER | {"lr": 1e200}, optim=OUTER, steps=2, listeners=[heard])
    assert heard.said == [("start", 2), ("close", "NON_FINITE_VALUE")]


def test_the_bar_of_rich_shows_steps_and_objective(capsys):
    rfho.tune(PROBLEM, HYPER, optim=OUTER, steps=2, listeners=[rfho.RichProgress("cleaning")])
    shown = capsys.readouterr().out
    assert "cleaning" in shown
    assert "2/2" in shown
    assert "f = " in shown
    assert jax.config.jax_enable_x64


def test_the_adjoint_of_a_second_moment_is_no_explosion():
    """In single precision, with gradients of 1e-5: the adjoint of Adam's v_0 is of the order of 1e9."""

    def flat(w, hyper, batch):
        return 1e-5 * jnp.sum((w - 1) ** 2)

    dynamics = rfho.Descent(
        flat, lambda hyper: rfho.optim.adam(hyper["lr"]), jnp.zeros(3, jnp.float32)
    )
    problem = rfho.Problem(dynamics, flat, None, None, horizon=5)
    hyper = {"lr": jnp.asarray(0.01, jnp.float32)}
    after_one = lambda state: problem.step(state, hyper, 0).params.sum()  # noqa: E731
    slopes = jax.grad(after_one, allow_int=True)(problem.init(hyper))
    floats = [leaf for leaf in jax.tree.leaves(slopes) if leaf.dtype == jnp.float32]
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in floats) > 1e7
    report = next(iter(rfho.iterate(problem, hyper, steps=1)))  # a warning would be an error
    assert report.stats["adjoint_norm"] < 10 * report.stats["seed_norm"]


def test_a_solution_keeps_no_tape():
    """Whoever tunes a hundred times and keeps what came of it keeps parameters, not trajectories."""
    size, horizon = 5_000, 50
    dynamics = rfho.Descent(error, optim, jnp.zeros(size))
    problem = rfho.Problem(
        dynamics,
        lambda w, hyper, batch: jnp.mean((w - 2) ** 2),
        train=lambda t: jnp.zeros(size),
        valid=None,
        horizon=horizon,
    )
    many = lambda: [array for array in jax.live_arrays() if array.size >= size * horizon]  # noqa: E731
    before = len(many())
    solution = rfho.tune(problem, {"lr": 0.05}, optim=OUTER, steps=2)
    assert len(many()) == before
    assert solution.params.shape == (size,)


def compiled(caplog, run):
    """The names of the programs that are compiled while it runs."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run()
    said = [record.getMessage() for record in caplog.records]
    return [line.split()[4] for line in said if line.startswith("Finished XLA compilation")]


def test_a_first_run_compiles_few_programs_and_a_second_none(caplog):
    """Twenty steps, as some findings look back that far."""
    jax.clear_caches()
    problem = problem_of()
    run = lambda: rfho.tune(problem, HYPER, optim=OUTER, domain=rfho.Positive(), steps=21)  # noqa: E731
    first = compiled(caplog, run)
    of_the_run = {"jit(_start)", "jit(_step_in_place)", "jit(_conclude)"}
    assert of_the_run <= set(first)
    assert len(first) == 3, first
    assert compiled(caplog, run) == []
