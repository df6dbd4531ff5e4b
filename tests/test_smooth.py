"""Repairs of training whose near hypergradients disagree: which is enough, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.checks import clipped, enlarged, ready_made, rooted, shortened, slowed, smooth, warmed_up

DATA = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))


def two_valleys(rate):
    """Beyond a rate of about 0.35 descent leaps between the valleys without end."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: (w**2 - 1) ** 2,
        lambda hyper: optax.sgd(rate * hyper["factor"]),
        jnp.array(0.3),
    )
    return rfho.Problem(dynamics, lambda w, hyper, batch: (w - 0.8) ** 2, horizon=60)


def fitted(optim, train=DATA, horizon=6):
    def loss(w, hyper, batch):
        return jnp.mean((jnp.tanh(batch @ w) - 1) ** 2) + hyper["l2"] * jnp.sum(w**2)

    dynamics = rfho.Descent(loss, optim, jnp.array([0.1, -0.3, 0.5]))
    return rfho.Problem(dynamics, loss, train, DATA, horizon)


def adam(**settings):
    return lambda hyper: optax.adam(hyper["lr"], **settings)


AT = {"lr": 0.1, "l2": 0.01}


def assert_same(one, other):
    """Both problems have one value and one hypergradient."""
    left, right = (rfho.hyper_gradient(problem, AT) for problem in (one, other))
    np.testing.assert_allclose(left.value, right.value, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14),
        left.hypergradient,
        right.hypergradient,
    )


def test_a_chaotic_training_is_repaired_and_the_price_is_told():
    repairs = {"hardly": slowed(0.95), "slow": slowed(0.3), "slower": slowed(0.005)}
    found = smooth(two_valleys(0.37), {"factor": 1.0}, repairs, together=1)
    as_it_is, hardly, slow, slower = found.trials
    assert max(as_it_is.agreement, hardly.agreement) < 0.5
    assert min(slow.agreement, slower.agreement) > 0.99
    assert slow.objective < slower.objective
    assert found.chosen is slow
    assert found.found
    np.testing.assert_allclose(slow.cost, slow.objective - as_it_is.objective)
    value = rfho.hyper_gradient(found.problem, {"factor": 1.0}).value
    np.testing.assert_allclose(slow.objective, value, rtol=1e-3)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["repair", "as", "hardly", "slow", "slower"]
    assert [line.endswith("<- chosen") for line in lines] == [False, False, False, True, False]


def test_nothing_is_changed_where_near_hypergradients_agree():
    problem = two_valleys(0.1)
    found = smooth(problem, {"factor": 1.0})
    (trial,) = found.trials
    assert trial.repairs == ()
    assert trial.agreement == 1
    assert found.problem is problem


def test_repairs_are_taken_together_where_none_is_enough():
    repairs = {"half": slowed(0.5), "less": slowed(0.6)}
    found = smooth(two_valleys(0.8), {"factor": 1.0}, repairs)
    assert all(trial.agreement < 0.9 for trial in found.trials[:-1])
    assert set(found.chosen.repairs) == {"half", "less"}
    assert found.found
    alone = smooth(two_valleys(0.8), {"factor": 1.0}, repairs, together=1)
    assert len(alone.trials) == 3
    assert not alone.found
    assert str(alone).endswith("none agrees by 0.9")


def test_a_problem_that_is_built_already_is_tried_by_itself():
    repairs = {"built": two_valleys(0.1), "hardly": slowed(0.99)}
    found = smooth(two_valleys(0.37), {"factor": 1.0}, repairs)
    assert found.chosen.repairs == ("built",)
    assert found.problem is repairs["built"]


def test_what_is_not_finite_agrees_with_nothing():
    found = smooth(two_valleys(3.0), {"factor": 1.0}, {"slow": slowed(0.05)})
    assert found.trials[0].agreement == -1
    assert found.trials[0].objective == np.inf
    assert found.chosen.repairs == ("slow",)


def test_rooted_is_what_optax_calls_eps_root():
    assert_same(rooted(1e-3)(fitted(adam())), fitted(adam(eps_root=1e-3)))


def test_slowed_multiplies_the_rate():
    assert_same(slowed(0.3)(fitted(adam())), fitted(lambda h: optax.adam(0.3 * h["lr"])))


def test_warmed_up_begins_with_small_steps():
    warm = lambda h: optax.sgd(lambda t: h["lr"] * jnp.minimum(1.0, (t + 1) / 4))  # noqa: E731
    assert_same(warmed_up(4)(fitted(lambda h: optax.sgd(h["lr"]))), fitted(warm))


def test_clipped_bounds_the_length_and_hardly_changes_what_is_short():
    short, long = jnp.full(4, 1e-4), jnp.full(4, 1e4)
    dynamics = clipped(1.0)(fitted(lambda h: optax.sgd(1.0))).dynamics
    moved = [dynamics.optim(AT).update(g, (optax.EmptyState(),) * 2)[0] for g in (short, long)]
    np.testing.assert_allclose(moved[0], -short, rtol=1e-6)
    np.testing.assert_allclose(moved[1], -jnp.full(4, 0.5), rtol=1e-6)


def test_averaged_weights_are_still_read_from_the_optimisers_own_slots():
    def optim(hyper):
        return optax.contrib.schedule_free_sgd(hyper["lr"])

    plain = fitted(optim)
    output = lambda w, slots: optax.contrib.schedule_free_eval_params(slots, w)  # noqa: E731
    dynamics = rfho.Descent(
        plain.dynamics.inner.loss, optim, jnp.array([0.1, -0.3, 0.5]), output=output
    )
    averaged = rfho.Problem(dynamics, plain.objective, DATA, DATA, horizon=6)
    assert_same(warmed_up(1)(averaged), averaged)


def test_enlarged_and_shortened_change_the_stream_and_the_horizon():
    problem = fitted(adam(), rfho.Stream(DATA, size=3, key=0))
    assert enlarged(2)(problem).train.size == 6
    assert enlarged(4)(problem).train.size == 8
    assert shortened(0.5)(problem).horizon == 3
    assert shortened(0.01)(problem).horizon == 1


def test_by_default_repairs_are_those_that_apply():
    names = lambda problem, hyper: {n.split("(")[0] for n in ready_made(problem, hyper)}  # noqa: E731
    plain = {"clipped", "slowed", "warmed_up", "shortened"}
    assert names(two_valleys(0.37), {"factor": 1.0}) == plain
    streamed = fitted(adam(), rfho.Stream(DATA, size=3, key=0))
    assert names(streamed, AT) == plain | {"rooted", "enlarged"}
    step = lambda w, hyper, batch: 3.9 * hyper["r"] * w * (1 - w)  # noqa: E731
    by_hand = rfho.Dynamics(lambda hyper: jnp.array(0.3), step)
    logistic_map = rfho.Problem(by_hand, lambda w, hyper, batch: w, horizon=40)
    found = smooth(logistic_map, {"r": 1.0, "unused": 2.0}, domain=LEARNED)
    assert [trial.repairs for trial in found.trials] == [(), ("shortened(0.5)",)]


LEARNED = {"r": rfho.Box(0.0, 1.02), "unused": rfho.Fixed()}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("repairs", "said"),
    [
        ([slowed(0.5)], "mapping from names to functions"),
        ({"mine": 3}, "'mine': 3, but a repair must be a function"),
        ({"mine": lambda problem: None}, "'mine' gave a NoneType"),
        ({"mine": enlarged(2)}, "train is a NoneType"),
    ],
)
def test_what_is_no_repair_is_told(repairs, said):
    with pytest.raises(TypeError, match=said):
        smooth(two_valleys(0.37), {"factor": 1.0}, repairs)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        *(lambda make=make: make(0.0) for make in (clipped, rooted, slowed, shortened)),
        *(lambda make=make: make(0) for make in (warmed_up, enlarged)),
        lambda: shortened(2.0),
        lambda: smooth(two_valleys(0.1), {"factor": 1.0}, distance=0.5),
        lambda: smooth(two_valleys(0.1), {"factor": 1.0}, agreement=2.0),
        lambda: smooth(two_valleys(0.1), {"factor": 1.0}, pairs=0),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_the_optimiser_of_other_dynamics_is_left_to_the_user():
    dynamics = rfho.HeavyBall(
        lambda w, h, b: w**2, lambda h, t: h["factor"], lambda h, t: 0.9, init=jnp.array(0.3)
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=2)
    with pytest.raises(TypeError, match="dynamics is a HeavyBall"):
        slowed(0.5)(problem)
