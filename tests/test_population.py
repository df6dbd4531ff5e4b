"""Many outer loops side by side are the same loops one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho import Result

RATES = (0.05, 0.1, 0.3)


def problem(horizon=5):
    """Least squares from zero; the outer objective is the distance to another point."""
    data = jnp.linspace(0.5, 1.5, 6).reshape(2, 3)

    def loss(w, hyper, batch):
        return jnp.sum(hyper["pull"] * (w - batch) ** 2)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), init=jnp.zeros(3))
    return rfho.Problem(
        dynamics,
        lambda w, hyper, batch: jnp.sum((w - batch) ** 2),
        train=data[0],
        valid=data[1],
        horizon=horizon,
    )


def starts():
    return [{"lr": rate, "pull": jnp.full(3, 0.5)} for rate in RATES]


DOMAINS = [{"lr": rfho.Box(0.0, 0.2 + rate), "pull": rfho.CappedL1(2.0 + rate)} for rate in RATES]
REVERSE = rfho.hyper_gradients.ReverseHyperGradient()
ONLINE = rfho.hyper_gradients.OnlineTruncatedHyperGradient(window=2, every=2)


@pytest.mark.parametrize("method", [REVERSE, ONLINE], ids=["batch", "online"])
def test_members_end_where_single_runs_end(method):
    optim = optax.adam(0.05)
    together = rfho.tune_many(
        problem(20), starts(), method=method, optim=optim, domains=DOMAINS, steps=4
    )
    for member, start, domain in zip(together, starts(), DOMAINS, strict=True):
        alone = rfho.tune(problem(20), start, method=method, optim=optim, domain=domain, steps=4)
        close(member.hyper, alone.hyper)
        close(member.value, alone.value)
        close(member.params, alone.params)
        assert member.result is alone.result
        assert len(member.history) == 4
        close(
            [report._replace(seconds=0, member=0) for report in member.history],
            [report._replace(seconds=0) for report in alone.history],
        )


@pytest.mark.filterwarnings("ignore::rfho.HyperGradientWarning")
def test_each_member_stays_in_its_own_domain():
    solutions = rfho.tune_many(problem(), starts(), optim=optax.sgd(10.0), domains=DOMAINS, steps=3)
    bounds = [0.2 + rate for rate in RATES]
    # The outer rate is far too large, so every rate ends at a bound of its own.
    assert all(
        np.isclose(solution.hyper["lr"], bound) or solution.hyper["lr"] == 0.0
        for solution, bound in zip(solutions, bounds, strict=True)
    )
    assert any(np.isclose(s.hyper["lr"], b) for s, b in zip(solutions, bounds, strict=True))


def test_one_domain_may_serve_all_members():
    (first, *_) = rfho.tune_many(problem(), starts(), domain=rfho.UnitInterval(), steps=2)
    alone = rfho.tune(problem(), starts()[0], domain=rfho.UnitInterval(), steps=2)
    close(first.hyper, alone.hyper)


def test_a_fixed_leaf_may_differ_between_members():
    domain = {"lr": rfho.Fixed(), "pull": rfho.NonNegative()}
    solutions = rfho.tune_many(problem(), starts(), domain=domain, steps=2)
    assert [float(solution.hyper["lr"]) for solution in solutions] == list(RATES)


def test_a_member_that_diverges_does_not_stop_the_others():
    calm, wild = {"lr": 0.1, "pull": jnp.ones(3)}, {"lr": 1e200, "pull": jnp.ones(3)}
    alone = rfho.tune(problem(), calm, steps=3)
    member, failed = rfho.tune_many(problem(), [calm, wild], steps=3)
    close(member.hyper, alone.hyper)
    assert member.result is Result.STEPS_DONE
    assert failed.result is Result.NON_FINITE_VALUE
    assert failed.history == ()
    assert float(failed.hyper["lr"]) == 1e200


def test_reports_come_one_for_each_member():
    steps = list(rfho.iterate_many(problem(), starts(), steps=2))
    assert [[report.step for report in reports] for reports in steps] == [[1] * 3, [2] * 3]
    last = rfho.tune_many(problem(), starts(), steps=2)
    close([report.hyper for report in steps[-1]], [solution.hyper for solution in last])


def test_ctrl_c_returns_what_there_is():
    class Interrupting(rfho.Listener):
        def step(self, report):
            if report.step == 2 and report.member == 2:
                raise KeyboardInterrupt

    solutions = rfho.tune_many(problem(), starts(), steps=5, listeners=[Interrupting()])
    assert [solution.result for solution in solutions] == [Result.STOPPED] * 3
    assert [len(solution.history) for solution in solutions] == [2] * 3


def test_the_loss_is_traced_once():
    traces = []

    def loss(w, hyper, batch):
        traces.append(1)
        return hyper["pull"] * (w - 1) ** 2

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), init=jnp.zeros(()))
    one = rfho.Problem(dynamics, lambda w, hyper, batch: w**2, train=None, valid=None, horizon=2)
    runs = rfho.iterate_many(one, [{"pull": 1.0}, {"pull": 2.0}], steps=4)
    next(runs)
    before = len(traces)
    assert len(list(runs)) == 3
    assert len(traces) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hypers": []}, "hypers is empty"),
        ({"domains": [rfho.Reals()]}, "1 domains for 3 starts"),
        ({"domains": [rfho.Reals()] * 3, "domain": rfho.Reals()}, "both domain and domains"),
        ({"domains": [rfho.Reals(), rfho.Reals(), rfho.NonNegative()]}, r"domains\[2\] differs"),
        ({"hypers": [{"lr": 0.1, "pull": 1.0}, {"lr": 0.1, "pull": jnp.ones(3)}]}, r"hypers\[1\]"),
        ({"steps": 0}, "steps=0"),
        ({"method": rfho.hyper_gradients.RealTimeHyperGradient(every=9)}, "never update"),
    ],
)
def test_misuse_is_refused_before_anything_runs(arguments, message):
    given = {"hypers": starts()} | arguments
    with pytest.raises(ValueError, match=message):
        rfho.tune_many(problem(), **given)


def close(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
