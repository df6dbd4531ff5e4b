"""Single-loop methods: equal to the papers' lines written by hand, and on minibatches as good as all of the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho import AlternatingHyperGradient, SingleLoopHyperGradient, T1T2HyperGradient
from rfho._programs.walk import everywhere

RNG = np.random.default_rng(0)
EXAMPLES, FEATURES, SIZE = 40, 3, 8
X = RNG.normal(size=(EXAMPLES, FEATURES))
Y = X @ [1.0, -0.5, 0.3] + 0.5 * RNG.normal(size=EXAMPLES)
VALID = RNG.normal(size=(10, FEATURES)), RNG.normal(size=10)
START = np.array([0.5, -1.0, 0.2])
RATE, ETA = 0.3, 0.2
HYPER = {"l2": np.array([0.3, 0.2, 0.4]), "shift": np.array(0.2)}
STREAM = rfho.Stream((X, Y), SIZE, key=0)
BATCHES = [tuple(map(np.asarray, STREAM(t))) for t in range(40)]


def loss(w, hyper, batch):
    x, y = batch
    residual = x @ w - y - hyper["shift"]
    return 0.5 * jnp.mean(residual**2) + 0.5 * jnp.sum(hyper["l2"] * w**2)


def error(w, hyper, batch):
    x, y = batch
    return 0.5 * jnp.mean((x @ w - y) ** 2) + 0.1 * hyper["shift"] ** 2


def problem_of(train, optim=lambda hyper: optax.sgd(ETA), horizon=5):
    return rfho.Problem(rfho.Descent(loss, optim, START), error, train, VALID, horizon)


# By hand.


def gradient(w, hyper, batch):
    x, y = batch
    return x.T @ (x @ w - y - hyper["shift"]) / len(y) + hyper["l2"] * w


def product(q, hyper, batch):
    """H q and (∂²_λwL) q."""
    x, _ = batch
    return x.T @ (x @ q) / len(x) + hyper["l2"] * q


def cross(w, q, batch):
    return {"l2": w * q, "shift": -np.mean(batch[0] @ q)}


def seed(w):
    return VALID[0].T @ (VALID[0] @ w - VALID[1]) / len(VALID[1])


def looked_at(w, q, hyper, batch):
    by_q = cross(w, q, batch)
    return {"l2": -by_q["l2"], "shift": 0.2 * hyper["shift"] - by_q["shift"]}


def estimates(method, problem, count, hyper=HYPER):
    """Some estimates at one λ."""
    hyper = jax.tree.map(jnp.asarray, hyper)
    estimate = eqx.filter_jit(method.estimate)
    carry, found = method.init(problem, hyper), []
    for k in range(count):
        one, carry = estimate(problem.at(k), hyper, carry)
        found.append(one)
    return found


def assert_close(found, expected, tolerance=1e-12):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_single_loop_is_soba_with_the_running_mean_of_ma_soba():
    def rate(k):
        return RATE / (1 + 0.1 * k)

    method = SingleLoopHyperGradient(rate, average=lambda k: 0.7 / (1 + k))
    w, q, mean = START, np.zeros(FEATURES), None
    for k, found in enumerate(estimates(method, problem_of(STREAM), 12)):
        batch = BATCHES[k]
        newest = looked_at(w, q, HYPER, batch)
        theta = 0.7 / (1 + k)
        mean = newest if mean is None else {n: m + theta * (newest[n] - m) for n, m in mean.items()}
        assert_close(found.hypergradient, mean)
        np.testing.assert_allclose(found.aux.params, w, atol=1e-12)
        residual = seed(w) - product(q, HYPER, batch)
        relative = np.linalg.norm(residual) / np.linalg.norm(seed(w))
        np.testing.assert_allclose(found.aux.stats["residual"], relative, atol=1e-12)
        # All three from what was known before any of them moved.
        w, q = w - ETA * gradient(w, HYPER, batch), q + rate(k) * residual
        assert found.aux.stats["t"] == k + 1


@pytest.mark.parametrize("warm_start", [True, False], ids=["AmIGO", "stocBiO"])
def test_alternating_trains_then_solves_then_looks_each_on_its_own_batch(warm_start):
    method = AlternatingHyperGradient(RATE, every=2, products=3, warm_start=warm_start)
    w, q, t = START, np.zeros(FEATURES), 0
    for found in estimates(method, problem_of(STREAM), 6):
        for batch in BATCHES[t : t + 2]:
            w = w - ETA * gradient(w, HYPER, batch)
        q = q if warm_start else np.zeros(FEATURES)
        for batch in BATCHES[t + 2 : t + 5]:
            q = q + RATE * (seed(w) - product(q, HYPER, batch))
        assert_close(found.hypergradient, looked_at(w, q, HYPER, BATCHES[t + 5]))
        t += 6


def test_cold_alternating_is_the_neumann_series_of_stocbio():
    """Q + 1 terms: ρ Σ_j Π_{i > j} (I - ρ H_i) v, the product over the batches that come later."""
    method = AlternatingHyperGradient(RATE, every=1, products=4, warm_start=False)
    (found,) = estimates(method, problem_of(STREAM), 1)
    w = START - ETA * gradient(START, HYPER, BATCHES[0])
    q = np.zeros(FEATURES)
    for j in range(4):
        term = RATE * seed(w)
        for batch in BATCHES[2 + j : 5]:
            term = term - RATE * product(term, HYPER, batch)
        q = q + term
    assert_close(found.hypergradient, looked_at(w, q, HYPER, BATCHES[5]))


def test_t1_t2_is_the_first_term_and_at_a_stationary_point_a_window_of_one():
    method = T1T2HyperGradient(ETA, every=3)
    first, second = estimates(method, problem_of(STREAM), 2)
    w = START
    for batch in BATCHES[:3]:
        w = w - ETA * gradient(w, HYPER, batch)
    assert_close(first.hypergradient, looked_at(w, ETA * seed(w), HYPER, BATCHES[3]))
    assert second.aux.stats["t"] == 8
    settled = problem_of((X, Y), horizon=400)
    there = estimates(T1T2HyperGradient(ETA, every=400), settled, 1)[0]
    window = rfho.hyper_gradient(settled, HYPER, rfho.TruncatedHyperGradient(1))
    assert_close(there.hypergradient, window.hypergradient, 1e-9)


def test_of_a_fixed_point_the_answer_is_that_of_the_whole_training_run():
    problem = problem_of((X, Y), lambda hyper: optax.sgd(ETA, momentum=0.5), horizon=400)
    method = AlternatingHyperGradient(1.0, every=400, products=400, condition=rfho.FixedPoint)
    (found,) = estimates(method, problem, 1)
    exact = rfho.hyper_gradient(problem, HYPER).hypergradient
    assert_close(found.hypergradient, exact, 1e-9)


def minimiser_hypergradient(hyper):
    """∇f at the minimiser on all of the data, in closed form."""
    curvature = X.T @ X / EXAMPLES + np.diag(hyper["l2"])
    w = np.linalg.solve(curvature, X.T @ (Y + hyper["shift"]) / EXAMPLES)
    return looked_at(w, np.linalg.solve(curvature, seed(w)), hyper, (X, Y))


ON_MINIBATCHES = {
    "SOBA, falling rates": SingleLoopHyperGradient(lambda k: 3 / (20 + k)),
    "MA-SOBA": SingleLoopHyperGradient(lambda k: 3 / (20 + k), average=lambda k: 1 / (1 + k)),
    "AmIGO, falling rates": AlternatingHyperGradient(lambda k: 3 / (20 + k), 2, 2),
}


@pytest.mark.parametrize("name", ON_MINIBATCHES)
def test_on_minibatches_it_converges_to_the_hypergradient_of_all_the_data(name):
    method = ON_MINIBATCHES[name]
    problem = problem_of(STREAM, lambda hyper: optax.sgd(lambda t: 3 / (20 + t)))
    hyper = jax.tree.map(jnp.asarray, HYPER)
    exact = minimiser_hypergradient(HYPER)
    size = np.sqrt(sum(np.sum(value**2) for value in exact.values()))

    @jax.jit
    def run():
        def one(carry, k):
            found, carry = method.estimate(problem.at(k), hyper, carry)
            return carry, found.hypergradient

        return jax.lax.scan(one, method.init(problem, hyper), jnp.arange(8_000))[1]

    history = run()
    gaps = sum(
        np.sum((np.asarray(history[n]) - exact[n]).reshape(8_000, -1) ** 2, 1) for n in exact
    )
    off = np.sqrt(gaps) / size
    # Without a mean there remains the noise of the one batch on which ∂²_λwL is read, and no bias.
    mean = sum(np.sum((np.mean(history[n][4000:], 0) - exact[n]) ** 2) for n in exact)
    assert np.sqrt(mean) / size < 0.01
    if name == "MA-SOBA":
        assert np.mean(off[200:400]) > 0.05
        assert np.mean(off[-1000:]) < 0.005


def test_tuning_on_minibatches_ends_at_a_minimum_on_all_of_the_data():
    rate = optax.exponential_decay(0.1, 1000, 0.8)
    outer = optax.exponential_decay(0.3, 1000, 0.6)
    problem = problem_of(STREAM, lambda hyper: optax.sgd(rate))
    method = SingleLoopHyperGradient(rate, average=0.1)
    tuner = rfho.Tuner(method, optax.sgd(outer), rfho.NonNegative())

    def steps(state, count):
        return jax.lax.fori_loop(0, count, lambda _, at: tuner.step(problem, at)[0], state)

    tuned = jax.jit(steps)(tuner.init(problem, HYPER), 10_000).hyper
    # At the bound nothing holds it but the projection.
    (free,) = np.nonzero(np.asarray(tuned["l2"]) > 0)
    assert len(free) >= 2
    here, before = (minimiser_hypergradient(at) for at in (jax.device_get(tuned), HYPER))
    for at, size in ((here, 0.002), (before, None)):
        slope = np.hypot(np.linalg.norm(at["l2"][free]), at["shift"])
        assert slope < size if size else slope > 0.05
    assert np.all(here["l2"] > -0.002)


def test_what_only_the_optimiser_sees_is_refused_before_anything_runs():
    problem = problem_of(STREAM, lambda hyper: optax.sgd(hyper["lr"]))
    for method in (SingleLoopHyperGradient(0.1), AlternatingHyperGradient(0.1, 1, 1)):
        with pytest.raises(ValueError, match='hyper\\["lr"\\] reaches neither'):
            rfho.hyper_gradient(problem, HYPER | {"lr": 0.1}, method)


@pytest.mark.usefixtures("unchecked")
def test_a_condition_that_is_made_already_is_refused():
    with pytest.raises(TypeError, match="without brackets"):
        SingleLoopHyperGradient(0.1, condition=rfho.Stationary())


# Speed.


def large_products(method):
    """How often an estimate on 512 examples of 64 features multiplies them."""
    data = jnp.ones((512, 64)), jnp.zeros(512, jnp.int32)

    def entropy(w, hyper, batch):
        scores = batch[0] @ w
        own = jnp.take_along_axis(scores, batch[1][:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(scores, axis=1) - own) + hyper * jnp.sum(w**2)

    dynamics = rfho.Descent(entropy, lambda hyper: optax.sgd(0.1), jnp.zeros((64, 3)))
    valid = jnp.ones((8, 64)), jnp.zeros(8, jnp.int32)
    problem = rfho.Problem(dynamics, entropy, data, valid, horizon=1).at(0)
    hyper = jnp.asarray(0.1)
    carry = method.init(problem, hyper)
    program = jax.make_jaxpr(lambda carry: method.estimate(problem, hyper, carry))(carry)
    products = (one for one in everywhere(program) if one.primitive.name == "dot_general")
    return sum(max(atom.aval.size for atom in one.invars) >= 512 * 64 for one in products)


@pytest.mark.parametrize(
    ("method", "most"),
    [
        (SingleLoopHyperGradient(0.1), 2),
        # Its step, its solve, and its look.
        (AlternatingHyperGradient(0.1, every=1, products=1), 6),
        # The step of three runs, and the look at all of them.
        (rfho.FirstOrderHyperGradient(penalty=10.0, every=1), 4),
    ],
)
def test_training_and_its_linear_system_read_the_data_together(method, most):
    assert large_products(method) <= most
