"""Influence is the derivative of retraining by the weight of each example, and predicts what leaving out does."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.attribution import influence, sweep, weighted
from rfho.attribution.sweep import answered
from rfho.attribution.validation import smoothness_of
from rfho.checks import derivative

EXAMPLES, SIZE, HORIZON, DRAWS = 6, 4, 7, 5


class Setting:
    """One way to train: what its losses per example are, on what it trains, from where it starts."""

    def __init__(self, each, data, init, beside=lambda w, hyper: 0.0):
        self.each, self.data, self.init, self.beside = each, data, init, beside

    def loss(self):
        whole = weighted(self.each)
        return lambda w, hyper, batch: whole(w, hyper, batch) + self.beside(w, hyper)


def squares(w, hyper, batch):
    return (batch[0] @ w["a"] + w["b"] - batch[1]) ** 2


def cross_entropies(w, hyper, batch):
    logits = batch[0] @ w["a"] + w["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])


def network_squares(w, hyper, batch):
    hidden = jnp.tanh(batch[0] @ w["a"] + w["b"])
    return (hidden @ w["c"] - batch[1]) ** 2


def penalty(w, hyper):
    return hyper["l2"] * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))


def regression(rng):
    data = rng.normal(size=(EXAMPLES, 3)), rng.normal(size=EXAMPLES)
    return Setting(squares, data, {"a": rng.normal(size=3), "b": rng.normal()}, penalty)


def classification(rng):
    data = rng.normal(size=(EXAMPLES, 3)), rng.integers(3, size=EXAMPLES)
    return Setting(cross_entropies, data, {"a": rng.normal(size=(3, 3)), "b": np.zeros(3)})


def network(rng):
    data = rng.normal(size=(EXAMPLES, 3)), rng.normal(size=EXAMPLES)
    init = {"a": rng.normal(size=(3, 2)), "b": np.zeros(2), "c": rng.normal(size=2)}
    return Setting(network_squares, data, init, penalty)


SETTINGS = {"regression": regression, "classification": classification, "network": network}
OPTIMISERS = {
    "sgd": lambda hyper: optax.sgd(0.1),
    "momentum": lambda hyper: optax.sgd(0.05, momentum=0.8, nesterov=True),
    "adam": lambda hyper: rfho.optim.adam(0.05),
    "adamw": lambda hyper: optax.adamw(0.05, eps_root=1e-6, weight_decay=hyper["l2"]),
    "clipped rmsprop": lambda hyper: optax.chain(
        optax.clip_by_global_norm(0.5), optax.rmsprop(0.02, eps_in_sqrt=True, eps=1e-4)
    ),
}
STREAMS = {
    "all of the data": lambda rng, data: data,
    "a stream": lambda rng, data: rfho.Stream(data, SIZE, key=int(rng.integers(1000))),
    "indices": lambda rng, data: rfho.Indexed(data, rng.integers(EXAMPLES, size=(5, SIZE))),
}


def draws(setting, stream, optim):
    """Problems that differ in their numbers alone, so that they share their programs."""
    like = SETTINGS[setting](np.random.default_rng(0))
    loss = like.loss()

    def asked(w, hyper, batch):
        return like.each(w, hyper, batch) + penalty(w, hyper)

    problems = []
    for seed in range(DRAWS):
        rng = np.random.default_rng([seed, 7])
        drawn = SETTINGS[setting](rng)
        valid = SETTINGS[setting](rng).data
        dynamics = rfho.Descent(loss, OPTIMISERS[optim], jax.tree.map(jnp.asarray, drawn.init))
        train = STREAMS[stream](rng, jax.tree.map(jnp.asarray, drawn.data))
        problems.append(rfho.Problem(dynamics, loss, train, valid, HORIZON))
    return problems, asked


@eqx.filter_jit
def trained(problem, hyper=None):
    """The parameters after plain training."""
    state = problem.init(hyper)
    step = lambda t, state: problem.step(state, hyper, t)  # noqa: E731
    return problem.dynamics.output(jax.lax.fori_loop(0, problem.horizon, step, state))


@eqx.filter_jit
def retrained(asked, points):
    return jax.vmap(lambda weights: answered(asked, weights))(points)


def by_finite_differences(asked, weight=1.0):
    """dE_j/dε_i of retraining with one weight moved by ± h."""
    number = asked.examples.number

    def moved(h):
        return retrained(asked, weight + h * jnp.eye(number))

    return np.asarray(derivative(moved, 2e-16, step=0.05).value).T


COMBINATIONS = [
    (setting, stream, optim) for setting in SETTINGS for stream in STREAMS for optim in OPTIMISERS
]
SAMPLE = {
    ("classification", "all of the data", "sgd"),
    ("network", "a stream", "adam"),
}


@pytest.mark.parametrize(
    ("setting", "stream", "optim"),
    [pytest.param(*one, marks=[] if one in SAMPLE else [pytest.mark.soak]) for one in COMBINATIONS],
)
def test_influence_is_the_derivative_of_retraining_by_each_weight(setting, stream, optim):
    problems, asked = draws(setting, stream, optim)
    hyper = {"l2": jnp.asarray(0.1)}
    for problem in problems:
        found = influence(problem, hyper, asked)
        expected = by_finite_differences(found.asked)
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(found.mean, expected, rtol=0, atol=1e-6 * max(1.0, size))
        answers = asked(trained(problem, hyper), hyper, problem.valid)
        np.testing.assert_allclose(found.values, answers, rtol=1e-12)


def small(
    train=None, *, each=squares, optim=lambda hyper: optax.sgd(0.1), horizon=HORIZON, **options
):
    rng = np.random.default_rng(1)
    drawn = regression(rng)
    loss = (
        weighted(each)
        if each is not None
        else (lambda w, hyper, batch: jnp.mean(squares(w, hyper, batch)))
    )
    data = jax.tree.map(jnp.asarray, drawn.data)
    dynamics = rfho.Descent(loss, optim, jax.tree.map(jnp.asarray, drawn.init), **options)
    valid = regression(rng).data
    return rfho.Problem(dynamics, loss, data if train is None else train(data), valid, horizon)


def a_stream(data):
    return rfho.Stream(data, SIZE, key=3)


def test_an_example_that_was_never_drawn_has_no_influence():
    problem = small(lambda data: rfho.Indexed(data, [[0, 1, 2], [2, 4, 4]]))
    found = influence(problem, queries=squares)
    np.testing.assert_array_equal(found.drawn[0], [4, 4, 7, 0, 6, 0])
    np.testing.assert_array_equal(found.mean[:, [3, 5]], 0.0)
    assert np.all(found.mean[:, [0, 1, 2, 4]] != 0)
    assert "2 examples were never drawn" in str(found)


POLICIES = (
    (rfho.StoreAll(rfho.Keep.RESIDUALS), 4),
    (rfho.Binomial(2), 1),
)


def test_neither_the_policy_nor_the_chunk_changes_it(monkeypatch):
    problem = small(a_stream, optim=lambda hyper: optax.sgd(0.05, momentum=0.9))
    expected = influence(problem, queries=squares).mean
    for policy, chunk in POLICIES:
        found = influence(problem, queries=squares, checkpoint=policy, chunk=chunk).mean
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14, err_msg=str(policy))
    # Large adjoints, which go back one after another.
    monkeypatch.setattr(sweep, "_SMALL", 0)
    found = influence(problem, queries=squares, chunk=5).mean
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def hand_written(loss, data):
    def step(w, hyper, batch):
        slope = rfho.grad(loss)(w, hyper, batch)
        return jax.tree.map(lambda w, g: w - 0.1 * jnp.sin(g), w, slope)

    return rfho.Dynamics(lambda hyper: start(), step)


def start():
    return jax.tree.map(jnp.asarray, regression(np.random.default_rng(1)).init)


def momentum(loss, data):
    return rfho.HeavyBall(loss, lambda h, t: 0.05, lambda h, t: 0.5, init=start())


def reversible(loss, data):
    return rfho.ReversibleDescent(loss, lambda h, t: 0.05, lambda h, t: 0.5, init=start())


def carrying(loss, data):
    def counted(w, hyper, batch):
        losses = squares(w.params, hyper, batch) * (1 + 0.1 * jnp.tanh(w.carried))
        return losses, 0.9 * w.carried + jnp.mean(losses)

    begin = rfho.Variables(start(), jnp.zeros(()))
    return rfho.Descent(weighted(counted), lambda h: optax.sgd(0.05), begin, has_aux=True)


@pytest.mark.parametrize(
    "make",
    [
        hand_written,
        carrying,
        pytest.param(momentum, marks=pytest.mark.soak),
        pytest.param(reversible, marks=pytest.mark.soak),
    ],
)
def test_any_dynamics_will_do(make):
    plain = small(a_stream)
    dynamics = make(weighted(squares), plain.train.data)
    problem = rfho.Problem(dynamics, weighted(squares), plain.train, plain.valid, HORIZON)

    def asked(w, hyper, batch):
        return squares(w.params if isinstance(w, rfho.Variables) else w, hyper, batch)

    found = influence(problem, queries=asked)
    expected = by_finite_differences(found.asked)
    np.testing.assert_allclose(
        found.mean, expected, rtol=0, atol=1e-5 if make is reversible else 1e-6
    )


def test_the_influence_on_the_objective_is_the_mean_of_that_on_its_examples():
    problem = small(a_stream)
    each, mean = influence(problem, queries=squares), influence(problem)
    np.testing.assert_allclose(mean.mean[0], each.mean.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(mean.values[0], each.values.mean(), rtol=1e-12)


def test_keys_of_the_steps_are_kept():
    def noisy(w, hyper, batch):
        (x, y), key = batch
        return squares(w, hyper, (x + 0.1 * jax.random.normal(key, x.shape), y))

    problem = small(lambda data: rfho.Keyed(a_stream(data), key=5), each=noisy)
    found = influence(problem, queries=squares)
    expected = by_finite_differences(found.asked)
    np.testing.assert_allclose(found.mean, expected, rtol=0, atol=1e-6)
    answers = squares(trained(problem), None, problem.valid)
    np.testing.assert_allclose(found.values, answers, rtol=1e-12)


def test_runs_on_random_subsets_are_averaged_over_those_that_had_the_example():
    problem = small(a_stream, horizon=6)
    found = influence(problem, queries=squares, runs=4, fraction=1 / 3, key=2)
    assert found.by_run.shape == (4, EXAMPLES, EXAMPLES)
    # Four of six examples are one batch: six steps of one batch each are six epochs of either.
    for run, drawn in zip(found.by_run, found.drawn, strict=True):
        assert sorted(drawn) == [0, 0, 6, 6, 6, 6]
        np.testing.assert_array_equal(run[:, drawn == 0], 0)
    had = np.maximum((found.drawn > 0).sum(axis=0), 1)
    np.testing.assert_allclose(found.mean, found.by_run.sum(axis=0) / had)
    same = influence(problem, queries=squares, runs=4, fraction=1 / 3, key=2)
    np.testing.assert_array_equal(same.by_run, found.by_run)
    by_others = []
    for others in np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]):
        had = np.maximum((found.drawn[others] > 0).sum(axis=0), 1)
        by_others.append((found.by_run[others].sum(axis=0) / had)[:, :2].sum(axis=1))
    expected = np.std(by_others, axis=0) * np.sqrt(3)
    np.testing.assert_allclose(found.predict([0, 1]).error, expected)


def test_at_a_smaller_weight_it_is_the_derivative_of_gentler_training():
    found = influence(small(a_stream), queries=squares, weight=0.25)
    expected = by_finite_differences(found.asked, weight=0.25)
    np.testing.assert_allclose(found.mean, expected, rtol=0, atol=1e-6)


@pytest.mark.soak
def test_runs_of_fresh_data_are_its_draws():
    def fresh(data):
        return rfho.Fresh(
            lambda k: rfho.Stream(data, SIZE, jax.random.fold_in(jax.random.key(0), k))
        )

    found = influence(small(fresh), queries=squares, runs=2)
    for k in range(2):
        one = small(lambda data, k=k: fresh(data).draw(k))
        expected = influence(one, queries=squares).mean
        np.testing.assert_allclose(found.by_run[k], expected, rtol=1e-10)


def test_predictions_are_to_first_order():
    found = influence(small(a_stream), queries=squares)
    by_number, by_mask = found.predict([1, 4]), found.predict(np.isin(np.arange(EXAMPLES), [1, 4]))
    np.testing.assert_array_equal(by_number.change, by_mask.change)
    np.testing.assert_allclose(by_number.change, -found.mean[:, [1, 4]].sum(axis=1))
    assert np.all(np.isnan(by_number.error))
    several = found.predict(np.eye(EXAMPLES, dtype=bool))
    np.testing.assert_allclose(several.change, -found.mean.T)


def test_examples_are_ranked_by_what_they_did():
    found = influence(small(a_stream), queries=squares)
    helped, harmed = found.top(0, count=2), found.harmful(0, count=2)
    order = np.argsort(found.mean[0])
    np.testing.assert_array_equal(helped.examples, order[:2])
    np.testing.assert_array_equal(harmed.examples, order[::-1][:2])
    np.testing.assert_array_equal(harmed.influence, found.mean[0][harmed.examples])
    overall = found.harmful(count=1)
    assert overall.examples[0] == np.argmax(found.mean.mean(axis=0))
    with pytest.raises(IndexError, match="0 to 5"):
        found.top(6)


def many():
    """Enough examples for correlations."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(120, 3))
    y = x @ [1.0, -0.5, 0.3] + rng.normal(size=120)
    data, valid = (jnp.asarray(x), jnp.asarray(y)), (x[5:11] + 0.1, y[5:11])
    loss = weighted(squares)
    begin = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), begin)
    return rfho.Problem(dynamics, loss, rfho.Stream(data, 20, key=0), valid, 60)


@pytest.mark.soak
def test_those_that_do_not_belong_are_found():
    def each(w, hyper, batch):
        return (w - batch) ** 2

    x = jnp.asarray(np.random.default_rng(0).normal(size=30)).at[jnp.array([3, 17, 20])].add(8)
    dynamics = rfho.Descent(weighted(each), lambda hyper: optax.sgd(0.1), jnp.zeros(()))
    valid = jnp.zeros(4)
    problem = rfho.Problem(dynamics, weighted(each), rfho.Stream(x, 10, key=0), valid, 60)
    found = influence(problem, queries=each)
    assert set(found.harmful(count=3).examples) == {3, 17, 20}
    assert str(found).startswith("influence of 30 examples on 4 queries, 1 run\n")


def test_what_leaving_out_a_few_does_is_predicted():
    report = influence(many(), queries=squares).validate(subsets=20, fraction=0.05)
    assert report.score > 0.98
    np.testing.assert_allclose(report.slope, 1, atol=0.2)
    assert report.left_out.sum(axis=1).tolist() == [6] * 20
    assert np.isnan(report.ceiling)
    assert "20 subsets of 6 of 120" in str(report)


def one_step():
    """All of the data at once, so that w is linear in the weights of the examples."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=30))
    loss = weighted(lambda w, hyper, batch: (w - batch) ** 2)
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), jnp.zeros(()))
    return rfho.Problem(dynamics, loss, x, x, horizon=1)


def test_where_answers_are_linear_in_the_weights_the_way_is_straight():
    found = influence(one_step(), queries=lambda w, hyper, batch: jnp.stack([w, -3 * w]))
    report = found.validate(subsets=12, fraction=0.3)
    assert report.smoothness == 1
    assert report.score > 1 - 1e-12
    assert "smoothness 1.00" in str(report)


def test_where_training_is_chaotic_the_way_is_not_straight():
    """Descent on a quartic at a rate beyond the edge of stability, for which half a weight is another course."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)))
    loss = weighted(lambda w, hyper, batch: jnp.sum((w**2 - 1 - 0.1 * batch) ** 2, axis=-1))
    report = {}
    for rate in (0.05, 0.37):
        dynamics = rfho.Descent(loss, lambda hyper, rate=rate: optax.sgd(rate), jnp.ones(2) / 3)
        problem = rfho.Problem(dynamics, loss, rfho.Stream(x, 40, key=0), x, horizon=80)
        found = influence(problem, queries=lambda w, hyper, batch: w)
        report[rate] = found.validate(subsets=40, fraction=0.05)
    assert report[0.05].smoothness > 0.99
    assert report[0.05].score > 0.99
    assert abs(report[0.37].smoothness) < 0.8
    assert report[0.37].smoothness < 0.5
    assert report[0.37].score < 0.5


def test_halves_in_pairs_tell_what_no_score_reaches():
    """The answer w is odd about its middle, its squared distance from there even."""
    problem = one_step()
    middle = 0.1 * jnp.mean(problem.train)

    def answers(w, hyper, batch):
        away = w - middle
        return jnp.stack([w, away**2, away / 100 + away**2])

    report = influence(problem, queries=answers).validate(subsets=40, antithetic=True)
    np.testing.assert_array_equal(report.left_out[0::2], ~report.left_out[1::2])
    alone = [
        influence(problem, queries=lambda *args, j=j: answers(*args)[j : j + 1]) for j in range(3)
    ]
    linear, even, both = (f.validate(subsets=40, antithetic=True) for f in alone)
    assert linear.linear_ceiling == pytest.approx(1)
    assert even.linear_ceiling < 0.05
    assert 0.2 < both.linear_ceiling < 0.95
    assert report.linear_ceiling == pytest.approx(
        np.mean([linear.linear_ceiling, even.linear_ceiling, both.linear_ceiling])
    )
    for one in (linear, even, both):
        assert one.score <= one.linear_ceiling + 1e-9
    assert "linear ceiling" in str(report)
    assert np.isnan(influence(problem, queries=answers).validate(subsets=4).linear_ceiling)


def test_with_retraining_the_noise_does_not_count_as_what_could_be_told():
    found = influence(many(), queries=squares, weight=0.5)
    report = found.validate(subsets=20, retrain=4, antithetic=True, key=3)
    assert report.score < report.linear_ceiling + 0.05
    assert report.linear_ceiling < np.sqrt((1 + report.ceiling**2) / 2) + 1e-12


@pytest.mark.parametrize(
    ("subsets", "fraction", "remedy"), [(4, 0.3, (4, 0.5)), (5, 0.5, (6, 0.5))]
)
def test_only_halves_come_in_pairs(subsets, fraction, remedy):
    found = influence(many(), queries=squares)
    with pytest.raises(ValueError, match=r"give fraction=0\.5 and an even number"):
        found.validate(subsets=subsets, fraction=fraction, antithetic=True)
    subsets, fraction = remedy
    found.validate(subsets=subsets, fraction=fraction, antithetic=True)


@pytest.mark.parametrize(
    ("halfway", "gone", "expected"),
    [
        ([[0.0], [1.0]], [[0.0], [2.0]], 1.0),
        ([[0.0], [1.0]], [[0.0], [0.5]], -1.0),
        # -3, -1, 1, 3 about their mean, and then -3, 1, 1, 1: the second turns round.
        ([[0.0], [2.0], [4.0], [6.0]], [[-1.0], [5.0], [7.0], [9.0]], (3 - 1 + 1 + 3) / 8),
        ([[1.0], [1.0]], [[0.0], [3.0]], 1.0),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 0.5]], 0.0),
    ],
)
def test_smoothness_is_what_the_formula_says(halfway, gone, expected):
    assert smoothness_of(np.array(halfway), np.array(gone)) == expected


def test_smoothness_of_chance_is_what_the_page_says():
    halfway, gone = np.random.default_rng(0).normal(size=(2, 2000, 50))
    assert smoothness_of(halfway, gone) == pytest.approx(-np.sqrt(0.5), abs=0.01)


def test_with_retraining_smoothness_is_that_of_the_order_of_the_run():
    found = influence(many(), queries=squares)
    same, retrained = (found.validate(subsets=12, retrain=r, key=3) for r in (0, 1))
    assert same.smoothness == pytest.approx(retrained.smoothness, rel=1e-12)
    assert not np.array_equal(same.answers, retrained.answers)


def test_averages_over_random_halves_say_what_leaving_out_a_half_does():
    single = influence(many(), queries=squares)
    averaged = influence(many(), queries=squares, runs=8, fraction=0.5, key=1)
    one, several = (f.validate(subsets=20, retrain=4, key=3) for f in (single, averaged))
    assert one.ceiling == several.ceiling
    assert 0.9 < several.ceiling <= 1
    assert several.score > 0.8
    # At full weights each counts for half of what it counts for among the half.
    assert abs(np.median(several.slope) - 1) < 0.2
    assert np.median(one.slope) > 1.6
    assert several.left_out.sum(axis=1).tolist() == [60] * 20
    np.testing.assert_array_equal(one.answers, several.answers)


def test_answers_of_retrained_models_are_those_of_models_trained_on_what_is_kept():
    problem = many()
    report = influence(problem, queries=squares).validate(subsets=3, fraction=0.25)
    weights = jnp.asarray(1.0 - report.left_out[1])

    def loss(w, hyper, batch):
        x, y, number = batch
        return jnp.mean(weights[number] * squares(w, hyper, (x, y)))

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), problem.dynamics.init(None).params)
    x, y = problem.train.data
    again = rfho.Problem(dynamics, loss, rfho.Stream((x, y, jnp.arange(120)), 20, key=0), None, 60)
    params = trained(again)
    np.testing.assert_allclose(report.answers[1], squares(params, None, problem.valid), rtol=1e-10)


def test_a_frame_has_a_row_for_each_example():
    pandas = pytest.importorskip("pandas")
    found = influence(small(a_stream), queries=squares)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc[2, 1] == found.mean[1, 2]
    assert (frame.index.name, frame.columns.name) == ("example", "query")


def test_the_picture_has_a_bar_for_each_example():
    figure = influence(small(a_stream), queries=squares).plot(query=1, count=3)
    (axes,) = figure.axes
    assert len(axes.patches) == 6
    assert "query 1" in axes.get_xlabel()


REFUSED = {
    "a loss that is not weighted": (
        lambda: influence(small(each=None)),
        TypeError,
        "make the loss",
    ),
    "a function of the step": (
        lambda: influence(small(lambda data: lambda t: data)),
        TypeError,
        "which example is in which batch",
    ),
    "no data": (
        lambda: influence(rfho.Problem(small().dynamics, squares, None, None, 3)),
        TypeError,
        "train is None",
    ),
    "a mean": (
        lambda: influence(small(each=lambda w, h, b: jnp.mean(squares(w, h, b)))),
        TypeError,
        "leave out its mean",
    ),
    "a scalar query": (
        lambda: influence(small(), queries=lambda w, h, b: jnp.sum(squares(w, h, b))),
        TypeError,
        "one number for each query",
    ),
    "runs that are all the same": (
        lambda: influence(small(), runs=2),
        ValueError,
        "all runs would be the same",
    ),
    "all left out": (lambda: influence(small(), fraction=1.0), ValueError, "between 0 and 1"),
    "no weight": (lambda: influence(small(), weight=0.0), ValueError, "weight=0.0"),
    "no chunk": (lambda: influence(small(), chunk=0), ValueError, "chunk=0"),
    "too few subsets": (
        lambda: influence(small()).validate(subsets=2),
        ValueError,
        "fewer than 3",
    ),
    "an unknown example": (
        lambda: influence(small()).predict([6]),
        ValueError,
        "there are 6 examples",
    ),
    "half an example": (lambda: influence(small()).predict([0.5]), ValueError, "left_out is float"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_influence_to_speak_of_is_refused(name):
    ask, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        ask()


def test_training_that_diverges_is_no_answer():
    problem = small(optim=lambda hyper: optax.sgd(1e9), horizon=60)
    with pytest.raises(rfho.HyperGradientError, match="query 0 has an answer that is not finite"):
        influence(problem, queries=squares)
