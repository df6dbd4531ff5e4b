"""Implicit differentiation: exact at a minimum, honest about its error elsewhere, and refused where it must be."""

import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho import solvers
from rfho._implicit.refusal import complaint_about
from rfho.domains.space import Rest
from rfho.hyper_gradients import Audit, ImplicitHyperGradient, ReverseHyperGradient

EXAMPLES, FEATURES = 20, 6
PLAIN = ImplicitHyperGradient(audit=None)
EXACT = ImplicitHyperGradient(audit=None, tolerance=1e-12)
AUDITED = ImplicitHyperGradient(solvers.CG(8))


# The quadratic of the oracles: f(w) = w'Aw / 2 - b'w + Σ λ_i w_i² / 2, E = ‖w - c‖² / 2.


@functools.cache
def oracle():
    with np.load(Path(__file__).parent / "oracles" / "d_quadratic.npz") as file:
        return {row: np.asarray(file[row]) for row in file.files}


def quadratic(horizon):
    def loss(w, hyper, batch):
        return 0.5 * w @ batch["A"] @ w - batch["b"] @ w + 0.5 * hyper @ w**2

    def objective(w, hyper, batch):
        return 0.5 * jnp.sum((w - batch) ** 2)

    rows = oracle()
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(float(rows["lr"])), rows["w0"])
    train = {name: rows[name] for name in ("A", "b")}
    return rfho.Problem(dynamics, objective, train=train, valid=rows["c"], horizon=horizon)


@pytest.mark.parametrize("horizon", [20, 100, 1000])
def test_where_training_stands_the_answer_is_that_of_another_program(horizon):
    estimate = rfho.hyper_gradient(quadratic(horizon), oracle()["lam"], EXACT)
    for ours, row in ((estimate.hypergradient, "lam"), (estimate.aux.params, "w")):
        theirs = oracle()[f"far_implicit_f64_T{horizon}_{row}"]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_at_the_minimiser_the_answer_is_exact():
    estimate = rfho.hyper_gradient(quadratic(1000), oracle()["lam"], EXACT)
    np.testing.assert_allclose(
        estimate.hypergradient, oracle()["implicit_exact_lam"], rtol=0, atol=1e-10
    )


# Logistic regression with a penalty per feature: strongly convex, and not quadratic.


def logistic(w, hyper, batch):
    x, y = batch
    return jnp.mean(jnp.logaddexp(0, -y * (x @ w["coefficients"] + w["intercept"])))


def penalised(w, hyper, batch):
    penalty = jnp.sum(jnp.exp(hyper["log_l2"]) * w["coefficients"] ** 2)
    return logistic(w, hyper, batch) + penalty + 0.05 * w["intercept"] ** 2


def regression(seed=0, *, horizon=30, dtype=jnp.float64, rate=0.5):
    """A problem, and a point; the rate is fixed, so that it may vary without a new program."""
    rng = np.random.default_rng(seed)
    array = functools.partial(jnp.asarray, dtype=dtype)

    def batch():
        x = rng.normal(size=(EXAMPLES, FEATURES)) * rng.uniform(0.5, 1.5, FEATURES)
        return array(x), array(np.sign(x @ rng.normal(size=FEATURES) + rng.normal(size=EXAMPLES)))

    init = {"coefficients": jnp.zeros(FEATURES, dtype), "intercept": jnp.zeros((), dtype)}
    dynamics = _dynamics(init)
    problem = rfho.Problem(dynamics, logistic, train=batch(), valid=batch(), horizon=horizon)
    hyper = {"log_l2": array(rng.uniform(-3.5, -1, FEATURES)), "lr": None}
    return fixing(problem, {"log_l2": None, "lr": array(rate)}), hyper


def fixing(problem, fixed):
    """The problem with some leaves of λ that are not learned."""
    return problem.at(0, Rest.of(fixed))


def bare(moment):
    """The problem of a moment, with all of λ to be learned."""
    parts = (moment.dynamics, moment.objective, moment.train, moment.valid)
    return rfho.Problem(*parts, horizon=moment.horizon)


def _optim(hyper):
    return optax.sgd(hyper["lr"])


def _dynamics(init):
    return rfho.Descent(penalised, _optim, init)


@eqx.filter_jit
def started(problem, hyper, method):
    return method.init(problem, hyper)


@eqx.filter_jit
def continued(problem, hyper, method, carry):
    return method.estimate(problem, hyper, carry)


def first(problem, hyper, method):
    """The first estimate; what is compiled for it serves those that follow."""
    estimate, _ = continued(problem, hyper, method, started(problem, hyper, method))
    return estimate


def norm(tree):
    return float(optax.tree.norm(tree))


def difference(left, right):
    return norm(jax.tree.map(lambda a, b: jnp.asarray(a, jnp.float64) - b, left, right))


@functools.cache
def truth(seed):
    """The hypergradient of the minimiser, by reverse mode through a training run that ends there."""
    problem, hyper = regression(seed, horizon=2500)
    return first(problem, hyper, ReverseHyperGradient()).hypergradient


def test_the_error_is_never_above_its_bound_and_the_bound_is_no_excuse():
    """100 strongly convex problems, each at four distances from its minimum."""
    excess, bounds, guesses = [], [], []
    for seed in range(100):
        rate = 10.0 ** np.random.default_rng(seed).uniform(-1, 0.3)
        problem, hyper = regression(seed, rate=rate)
        carry = started(problem, hyper, AUDITED)
        for _ in range(4):
            estimate, carry = continued(problem, hyper, AUDITED, carry)
            stats = estimate.aux.stats
            error = difference(estimate.hypergradient, truth(seed))
            bounds.append(float(stats["relative_error_bound"]))
            excess.append(error / float(stats["error_bound"]))
            guesses.append(float(stats["error"]) / error)
    assert max(excess) <= 1
    # A bound of infinity is never wrong: most must be better, and some must be sharp.
    assert np.mean(np.isfinite(bounds)) > 0.5
    assert np.mean(np.asarray(excess) > 0.5) > 0.3
    assert 0.8 < np.median(guesses) < 1.2


def test_the_bound_holds_in_float32():
    for seed in range(20):
        problem, hyper = regression(seed, dtype=jnp.float32, rate=1.0)
        carry = started(problem, hyper, AUDITED)
        for _ in range(4):
            estimate, carry = continued(problem, hyper, AUDITED, carry)
        error = difference(estimate.hypergradient, truth(seed))
        assert estimate.hypergradient["log_l2"].dtype == jnp.float32
        assert error <= float(estimate.aux.stats["error_bound"])
        assert error <= 0.05 * norm(truth(seed))


def test_a_known_penalty_gives_a_bound_anywhere():
    problem, hyper = regression(1, rate=0.02)
    hyper = hyper | {"log_l2": jnp.full(FEATURES, jnp.log(0.005))}
    unknown = first(problem, hyper, AUDITED).aux.stats
    known = ImplicitHyperGradient(audit=rfho.hyper_gradients.Audit(curvature=0.01))
    known = first(problem, hyper, known).aux.stats
    assert np.isinf(unknown["error_bound"])
    assert np.isfinite(known["error_bound"])


def test_an_audit_changes_no_answer():
    problem, hyper = regression(2)
    with_audit = first(problem, hyper, AUDITED)
    without = first(problem, hyper, ImplicitHyperGradient(solvers.CG(8), audit=None))
    assert difference(with_audit.hypergradient, without.hypergradient) < 1e-14
    assert set(without.aux.stats) < set(with_audit.aux.stats)


SOLVERS = {
    "NormalEquations": solvers.NormalEquations(),
    "GMRES": solvers.GMRES(),
    "BiCGStab": solvers.BiCGStab(),
    "Neumann": solvers.Neumann(terms=400, rate=0.5),
    "Nystrom": solvers.Nystrom(rank=FEATURES + 1, damping=1e-9),
}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_every_solver_finds_the_same(solver):
    problem, hyper = regression(3)
    expected = first(problem, hyper, EXACT).hypergradient
    method = ImplicitHyperGradient(solver, audit=None, tolerance=1e-12)
    found = first(problem, hyper, method).hypergradient
    assert difference(found, expected) < 1e-6 * norm(expected)


def test_one_step_is_the_last_step_of_the_reverse_sweep():
    one = ImplicitHyperGradient(solvers.OneStep(rate=0.5), audit=None)
    last = rfho.hyper_gradients.TruncatedHyperGradient(window=1)
    far, there = regression(4, horizon=2000)
    implicit = first(far, there, one).hypergradient
    truncated = first(far, there, last).hypergradient
    assert difference(implicit, truncated) < 1e-9 * norm(truncated)


def test_twenty_neumann_terms_at_the_training_rate_say_how_wrong_they_are():
    """The comparison of docs/explanation/implicit.md at a smaller size."""
    problem, hyper = regression(5, horizon=1500, rate=0.03)
    few = ImplicitHyperGradient(solvers.Neumann(terms=20, rate=0.03), warm_start=False)
    estimate = first(problem, hyper, few)
    error = difference(estimate.hypergradient, truth(5)) / norm(truth(5))
    assert error > 0.7
    np.testing.assert_allclose(estimate.aux.stats["relative_error"], error, rtol=0.05)
    assert estimate.aux.stats["residual"] > 0.5
    assert estimate.aux.stats["spectral_radius"] < 1


# Training and solve in several outer steps.


def test_a_warm_start_saves_products_and_training():
    problem, hyper = regression(6, horizon=400)
    near = hyper | {"log_l2": hyper["log_l2"] + 1e-4}
    carry = started(problem, hyper, PLAIN)
    first, carry = continued(problem, hyper, PLAIN, carry)
    second, carry = continued(problem, near, PLAIN, carry)
    assert second.aux.stats["products"] < first.aux.stats["products"]
    assert second.aux.stats["stationarity"] < 0.1 * first.aux.stats["stationarity"]
    assert int(carry.t) == 2 * problem.horizon


def test_without_a_warm_start_every_estimate_begins_anew():
    problem, hyper = regression(6)
    method = ImplicitHyperGradient(warm_start=False, audit=None)
    first, carry = continued(problem, hyper, method, started(problem, hyper, method))
    second, _ = continued(problem, hyper, method, carry)
    assert carry is None
    assert difference(first.hypergradient, second.hypergradient) == 0


def test_tolerances_follow_the_outer_step():
    problem, hyper = regression(7, horizon=1000)
    epsilon = lambda k: 0.1 * 0.5**k  # noqa: E731
    method = ImplicitHyperGradient(tolerance=epsilon, inner_tolerance=epsilon, audit=None)
    carry, steps = started(problem, hyper, method), []
    for k in range(0, 12, 4):
        before = int(carry.t)
        estimate, carry = continued(problem.at(k), hyper, method, carry)
        steps.append(int(carry.t) - before)
        assert estimate.aux.stats["residual"] <= epsilon(k)
        assert estimate.aux.stats["stationarity"] <= epsilon(k)
    assert all(100 <= count < 1000 for count in steps if count)


def test_memory_does_not_depend_on_the_horizon():
    short, hyper = regression(8, horizon=10)
    long, _ = regression(8, horizon=1000)
    carry = started(short, hyper, PLAIN)
    compiled = [continued.lower(p, hyper, PLAIN, carry).compile() for p in (short, long)]
    sizes = [program.compiled.memory_analysis().temp_size_in_bytes for program in compiled]
    assert sizes[0] == sizes[1]


def test_tune_goes_down_from_warm_start_to_warm_start():
    problem, hyper = regression(9)
    hyper = {"log_l2": hyper["log_l2"], "lr": jnp.asarray(0.5)}
    problem = bare(problem)
    solution = rfho.tune(
        problem,
        hyper,
        method=ImplicitHyperGradient(tolerance=lambda k: 0.1 * 0.8**k, audit=None),
        optim=optax.adam(0.1),
        domain={"log_l2": rfho.Reals(), "lr": rfho.Fixed()},
        steps=25,
    )
    assert solution.value < solution.history[0].value - 0.01
    assert solution.result is rfho.Result.STEPS_DONE


# Conditions.


def test_a_stationary_point_of_descent_is_a_fixed_point_of_its_steps():
    problem, hyper = regression(10, horizon=1500)
    method = ImplicitHyperGradient(
        solvers.GMRES(), condition=rfho.FixedPoint(), tolerance=1e-10, audit=None
    )
    fixed = first(problem, hyper, method)
    stationary = first(problem, hyper, EXACT)
    assert difference(fixed.hypergradient, stationary.hypergradient) < 1e-8


def two_players():
    """Descent on x and ascent on y of x²/2 + hyper x y - y²/2 - x: a rotation, and no loss."""
    return rfho.Dynamics(
        init=lambda hyper: (jnp.zeros(()), jnp.zeros(())),
        step=lambda s, hyper, batch: (
            s[0] - 0.1 * (s[0] + hyper * s[1] - 1),
            s[1] + 0.1 * (hyper * s[0] - s[1]),
        ),
    )


def game(condition=None, **settings):
    problem = rfho.Problem(
        two_players(), lambda s, hyper, batch: s[0] + s[1], None, None, horizon=300
    )
    return problem, ImplicitHyperGradient(condition=condition or rfho.FixedPoint(), **settings)


X_PLUS_Y = -7 / 25  # x = 1 / (1 + h²), y = h x: d(x + y)/dh = (1 - 2 h - h²) / (1 + h²)² at h = 2


@pytest.mark.parametrize(
    "solver",
    [solvers.GMRES(), solvers.NormalEquations(), solvers.Neumann(terms=300)],
    ids=["GMRES", "NormalEquations", "fixed-point iteration"],
)
def test_dynamics_without_a_loss_have_a_fixed_point(solver):
    problem, method = game(solver=solver, audit=None)
    estimate = rfho.hyper_gradient(problem, 2.0, method)
    np.testing.assert_allclose(estimate.hypergradient, X_PLUS_Y, rtol=1e-5)


def test_momentum_contracts_though_its_matrix_bends_downwards():
    """A step has the eigenvalues 0.4 ± 0.8 i, I - ∂Φᵀ is not symmetric: qᵀM q < 0 is no reason to refuse."""
    dynamics = rfho.Descent(
        lambda w, hyper, batch: 0.5 * (w - 1) ** 2 + 0.5 * hyper * w**2,
        lambda hyper: optax.sgd(0.5, momentum=0.8),
        init=jnp.ones(()),
    )
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, None, None, horizon=300)
    for terms in (5, 200):
        method = ImplicitHyperGradient(
            solvers.Neumann(terms), condition=rfho.FixedPoint(), audit=None
        )
        estimate = rfho.hyper_gradient(problem, 1.0, method)
    np.testing.assert_allclose(estimate.hypergradient, -0.25, rtol=1e-6)


def test_a_fixed_point_has_an_error_bound_too():
    problem, method = game(solver=solvers.Neumann(terms=10))
    estimate = rfho.hyper_gradient(problem, 2.0, method)
    error, stats = abs(estimate.hypergradient - X_PLUS_Y), estimate.aux.stats
    assert 0.05 < error <= stats["error_bound"] < 2 * error
    np.testing.assert_allclose(stats["spectral_radius"], np.hypot(0.9, 0.2), rtol=1e-6)


def test_each_hyperparameter_may_follow_its_own_objective():
    problem, hyper = regression(11)
    hyper = {"log_l2": hyper["log_l2"], "shift": jnp.asarray(0.1), "lr": None}

    def shifted(w, hyper, batch):
        return penalised(w, hyper, batch) + hyper["shift"] * w["intercept"]

    def squares(w, hyper, batch):
        return jnp.sum(w["coefficients"] ** 2) + w["intercept"]

    def of(objective):
        problem_of = eqx.tree_at(lambda p: p.dynamics.inner.loss, problem, shifted)
        problem_of = eqx.tree_at(lambda p: p.objective, problem_of, objective)
        fixed = {"log_l2": None, "shift": None, "lr": jnp.asarray(0.5)}
        return fixing(problem_of, fixed)

    both = {"log_l2": logistic, "shift": squares, "lr": logistic}
    estimate = first(of(both), hyper, ImplicitHyperGradient())
    for name, objective in (("log_l2", logistic), ("shift", squares)):
        alone = first(of(objective), hyper, PLAIN).hypergradient
        np.testing.assert_allclose(estimate.hypergradient[name], alone[name], rtol=1e-4)
    assert estimate.aux.stats["relative_error"].shape == ()


def test_tasks_are_solved_side_by_side():
    one, hyper = regression(12)
    other, _ = regression(13)
    tasks = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), getattr(one, part), getattr(other, part))
        for part in ("train", "valid")
    ]
    many = rfho.over_tasks(bare(one), tuple(tasks)).at(0, one.rest)
    together = first(many, hyper, EXACT).hypergradient["log_l2"]
    alone = [first(p, hyper, EXACT).hypergradient["log_l2"] for p in (one, other)]
    np.testing.assert_allclose(together, sum(alone) / 2, rtol=1e-9)


# What is refused before anything runs.


def simple(loss, *, optim=lambda hyper: optax.sgd(0.1), init=0.0, train=None, objective=None):
    init = init if callable(init) else jnp.asarray(init)
    dynamics = rfho.Descent(loss, optim, init)
    objective = objective or (lambda w, hyper, batch: jnp.sum(w**2))
    return rfho.Problem(dynamics, objective, train=train, valid=None, horizon=5)


def test_a_rate_is_refused_by_name():
    problem, hyper = regression(0)
    hyper = {"log_l2": hyper["log_l2"], "lr": jnp.asarray(0.5)}
    with pytest.raises(ValueError, match=r'hyper\["lr"\] reaches neither the gradient of the loss'):
        rfho.hyper_gradient(bare(problem), hyper, ImplicitHyperGradient())


def test_learned_initial_parameters_are_refused_by_name():
    problem = simple(lambda w, hyper, batch: (w - hyper[1]) ** 2, init=lambda hyper: hyper[0])
    with pytest.raises(ValueError, match=r"hyper\[0\] reaches neither"):
        rfho.tune(problem, [0.1, 0.2], method=ImplicitHyperGradient())


def test_minibatches_are_refused_unless_the_condition_has_data_of_its_own():
    problem, hyper = regression(14, horizon=400)
    stream = rfho.Stream(problem.train, size=10, key=0)
    noisy = rfho.Problem(problem.dynamics, logistic, stream, problem.valid, horizon=400)
    noisy = noisy.at(0, problem.rest)
    with pytest.raises(ValueError, match="train is a Stream"):
        first(noisy, hyper, PLAIN)
    condition = rfho.Stationary(batch=problem.train)
    method = ImplicitHyperGradient(condition=condition, audit=None)
    stats = first(noisy, hyper, method).aux.stats
    assert stats["stationarity"] > 1e-3
    assert stats["residual"] < 1e-5


SEARCHES = {
    "Newton": lambda loss, init: rfho.dynamics.Newton(loss, init),
    "L-BFGS": lambda loss, init: rfho.dynamics.DescentWithValue(
        loss, lambda hyper: optax.lbfgs(), init
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_any_search_for_the_minimum_will_do(search):
    """Few steps without a rate end where many steps of gradient descent do."""
    moment, hyper = regression(horizon=2000)
    expected = first(moment, hyper, EXACT)
    init = {"coefficients": jnp.zeros(FEATURES), "intercept": jnp.zeros(())}
    dynamics = SEARCHES[search](penalised, init)
    problem = rfho.Problem(dynamics, logistic, moment.train, moment.valid, horizon=15)
    hyper = {"log_l2": hyper["log_l2"]}
    method = ImplicitHyperGradient(audit=None, tolerance=1e-12, inner_tolerance=1e-9)
    estimate = rfho.hyper_gradient(problem, hyper, method)
    np.testing.assert_allclose(
        estimate.hypergradient["log_l2"], expected.hypergradient["log_l2"], atol=1e-8
    )
    assert estimate.aux.stats["stationarity"] < 1e-8


def test_dynamics_without_a_loss_are_pointed_to_the_fixed_point():
    problem, method = game(condition=rfho.Stationary())
    with pytest.raises(TypeError, match=r"use the condition rfho.FixedPoint\(\)"):
        rfho.hyper_gradient(problem, 2.0, method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1.0}, "tolerance=-1.0"),
        ({"inner_tolerance": float("inf")}, "inner_tolerance=inf"),
        ({"refuse_above": 0.1, "audit": None}, "audit=None"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImplicitHyperGradient(**settings)


# What is refused once it is seen, by `hyper_gradient` and by `tune`.


def refused(problem, hyper, method):
    with pytest.raises(rfho.HyperGradientError) as caught:
        rfho.hyper_gradient(problem, hyper, method)
    return caught.value


def test_an_error_bound_above_the_tolerance_is_refused_and_one_below_is_not():
    method = ImplicitHyperGradient(refuse_above=0.5)
    problem, hyper = regression(15, horizon=100, rate=0.001)
    error = refused(problem, hyper, method)
    assert error.result is rfho.Result.INACCURATE
    assert "% wrong" in str(error)
    problem, hyper = regression(15, horizon=100, rate=1.0)
    rfho.hyper_gradient(problem, hyper, method)


def test_the_answer_of_a_training_that_has_diverged_is_refused_by_default():
    problem, hyper = regression(15, horizon=100, rate=5.0)
    error = refused(problem, hyper, ImplicitHyperGradient())
    assert error.result is rfho.Result.INACCURATE
    assert "lower rate" in str(error)
    found = rfho.hyper_gradient(problem, hyper, ImplicitHyperGradient(), throw=False)
    assert found.aux.stats["excess"] > 1


def test_a_diverging_series_is_refused():
    problem, hyper = regression(16)
    error = refused(problem, hyper, ImplicitHyperGradient(solvers.Neumann(terms=50, rate=5.0)))
    assert error.result is rfho.Result.DIVERGING
    assert "rate=5" in str(error)


def test_conjugate_gradients_on_a_system_without_symmetry_are_refused():
    problem, method = game(solver=solvers.CG())
    error = refused(problem, 2.0, method)
    assert error.result is rfho.Result.NOT_SYMMETRIC
    assert "GMRES" in str(error)


def trough(w, hyper, batch):
    return 0.5 * (w[0] - hyper) ** 2 + 0.5 * batch * w[1] ** 2


def interested(w, hyper, batch):
    return w[0] ** 2 + batch * w[1]


def constant_rate(hyper):
    return optax.sgd(1.0)


def valley(curvature, interest):
    """One curvature is 1, the other a number; the objective sees w_1 as far as it has an interest."""
    dynamics = rfho.Descent(trough, constant_rate, jnp.array([0.0, 1.0]))
    return rfho.Problem(dynamics, interested, train=curvature, valid=interest, horizon=2)


def test_a_saddle_is_refused():
    error = refused(valley(-0.5, 1.0), 0.5, ImplicitHyperGradient())
    assert error.result is rfho.Result.NEGATIVE_CURVATURE
    assert "-0.5" in str(error)


def test_tune_ends_with_the_last_answer_that_was_not_refused():
    method = ImplicitHyperGradient(audit=None)
    solution = rfho.tune(valley(-0.5, 1.0), 0.5, method=method, throw=False)
    assert solution.result is rfho.Result.NEGATIVE_CURVATURE
    assert solution.result.failed
    assert solution.hyper == 0.5


def test_a_singular_system_without_a_solution_is_refused():
    error = refused(valley(0.0, 1.0), 0.5, ImplicitHyperGradient())
    assert error.result is rfho.Result.SINGULAR
    assert "0 to rounding beside the largest, 1: either the loss is flat" in str(error)


def test_curvatures_too_far_apart_for_single_precision_are_called_that():
    """A regular system, with a penalty on every parameter, that float32 cannot tell from a flat one."""
    curvature = jnp.geomspace(1e-7, 1.0, 60, dtype=jnp.float32)
    dynamics = rfho.Descent(_stretched, constant_rate, jnp.ones(60, jnp.float32))
    objective = lambda w, hyper, batch: jnp.sum(w)  # noqa: E731
    method = ImplicitHyperGradient(solvers.CG(20), audit=Audit(90))
    problem = rfho.Problem(dynamics, objective, curvature, None, horizon=2)
    error = refused(problem, jnp.float32(1.0), method)
    assert error.result is rfho.Result.SINGULAR
    assert "too far apart for these numbers" in str(error)
    assert "float64" in str(error)


def _stretched(w, hyper, curvature):
    return 0.5 * hyper * jnp.sum(curvature * w**2) - jnp.sum(w)


def test_a_singular_system_with_a_solution_is_not():
    estimate = rfho.hyper_gradient(valley(0.0, 0.0), 0.5, ImplicitHyperGradient())
    np.testing.assert_allclose(estimate.hypergradient, 1.0, rtol=1e-9)
    assert estimate.aux.stats["curvature"] == 0
    assert np.isinf(estimate.aux.stats["error_bound"])


FINE = {"residual": 1e-8, "curvature": 0.5, "asymmetry": 1e-9, "relative_error_bound": 1e-3}


@pytest.mark.parametrize(
    ("solver", "seen", "result"),
    [
        (solvers.CG(), {}, None),
        (solvers.CG(), {"asymmetry": 0.3}, "NOT_SYMMETRIC"),
        (solvers.GMRES(), {"asymmetry": 0.3}, None),
        (solvers.CG(), {"curvature": -0.1}, "NEGATIVE_CURVATURE"),
        (solvers.GMRES(), {"curvature": -0.1}, None),
        (solvers.CG(), {"curvature": 0.0, "residual": 0.5}, "SINGULAR"),
        (solvers.Nystrom(3, 0.1), {"curvature": 0.0, "residual": 0.5}, None),
        (solvers.Neumann(20, 0.1), {"spectral_radius": 1.01, "residual": 0.9}, "DIVERGING"),
        (solvers.Neumann(20, 0.1), {"spectral_radius": 0.99, "residual": 0.9}, None),
        (solvers.BiCGStab(), {"residual": float("nan")}, "UNSOLVED"),
        (solvers.CG(), {"relative_error_bound": 2.0}, "INACCURATE"),
        (solvers.CG(), {"relative_error_bound": float("nan")}, "INACCURATE"),
    ],
)
def test_a_solver_is_held_to_what_it_takes_for_granted(solver, seen, result):
    stats = FINE | {"relative_error": 0.9, "stationarity": 0.1} | seen
    error = complaint_about(solver, stats, refuse_above=1.0)
    assert (error and error.result.name) == result
