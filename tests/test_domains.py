"""Domains: the projection is the nearest point of the set, and its derivatives are right."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cvxpy
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rfho
from rfho import domains

UPPER = np.array([0.5, 1.0, 2.0])
EYE = np.eye(4)


class Case(NamedTuple):
    """A domain, the shape of a leaf, and the same set in the words of CVXPY and of NumPy."""

    domain: domains.AbstractDomain
    shape: tuple[int, ...]
    constraints: Callable[[Any], Sequence[Any]]
    violations: Callable[[np.ndarray], Sequence[Any]]


def _capped(radius):
    return Case(
        domains.CappedL1(radius),
        (2, 3),
        lambda v: [v >= 0, v <= 1, cvxpy.sum(v) <= radius],
        lambda x: [-x, x - 1, (x.sum() - radius) / max(1, radius)],
    )


def _simplex(total, shape):
    return Case(
        domains.Simplex(total),
        shape,
        lambda v: [v >= 0, cvxpy.sum(v) == total],
        lambda x: [-x, abs(x.sum() - total) / max(1, total)],
    )


def _symmetric(radius):
    bound = np.inf if radius is None else radius
    return Case(
        domains.SymmetricNonNegative(radius),
        (4, 4),
        lambda v: (
            [v >= 0, v == v.T, cvxpy.diag(v) == 0]
            + ([] if radius is None else [cvxpy.sum(v) <= radius])
        ),
        lambda x: [-x, abs(x - x.T), abs(EYE * x), (x.sum() - bound) / max(1, radius or 1)],
    )


CASES = {
    "Reals": Case(domains.Reals(), (4,), lambda v: [], lambda x: [0.0]),
    "Fixed": Case(domains.Fixed(), (4,), lambda v: [], lambda x: [0.0]),
    "NonNegative": Case(domains.NonNegative(), (4,), lambda v: [v >= 0], lambda x: [-x]),
    "NonNegative scalar": Case(domains.NonNegative(), (), lambda v: [v >= 0], lambda x: [-x]),
    "Positive": Case(domains.Positive(0.5), (4,), lambda v: [v >= 0.5], lambda x: [1 - x / 0.5]),
    "UnitInterval": Case(
        domains.UnitInterval(), (5,), lambda v: [v >= 0, v <= 1], lambda x: [-x, x - 1]
    ),
    "Box": Case(
        domains.Box(-0.5, UPPER),
        (2, 3),
        lambda v: [v >= -0.5, v <= np.broadcast_to(UPPER, (2, 3))],
        lambda x: [-0.5 - x, x - UPPER],
    ),
    "Box half-open": Case(
        domains.Box(1.0, np.inf), (3,), lambda v: [v >= 1.0], lambda x: [1.0 - x]
    ),
    "LogBox": Case(
        domains.LogBox(0.25, UPPER),
        (2, 3),
        lambda v: [v >= 0.25, v <= np.broadcast_to(UPPER, (2, 3))],
        lambda x: [1 - x / 0.25, x / UPPER - 1],
    ),
    "Scaled": Case(
        domains.Scaled(domains.Box(-0.5, 1.5)),
        (3,),
        lambda v: [v >= -0.5, v <= 1.5],
        lambda x: [-0.5 - x, x - 1.5],
    ),
    "Simplex": _simplex(1.0, (6,)),
    "Simplex of a matrix": _simplex(2.5, (2, 3)),
    "Simplex of one entry": _simplex(0.3, (1,)),
    "CappedL1": _capped(1.7),
    "CappedL1 whole budget": _capped(2.0),
    "CappedL1 idle budget": _capped(9.0),
    "CappedL1 no budget": _capped(0.0),
    "SymmetricNonNegative": _symmetric(None),
    "SymmetricNonNegative bounded": _symmetric(1.5),
    "SymmetricNonNegative origin": _symmetric(0.0),
}
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}

each_case = pytest.mark.parametrize("name", CASES)
each_precision = pytest.mark.parametrize("dtype", TOLERANCE)
entries = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]), st.floats(-4, 4, allow_subnormal=False)
)


# The parameters of the domain are traced: one compilation for each class and shape.
project_onto = jax.jit(lambda domain, x: domain.project(x))
contains = jax.jit(lambda domain, x, tol: domain.contains(x, tol), static_argnums=2)


@functools.cache
def _project(name):
    return jax.jit(lambda x: CASES[name].domain.project(x))


@functools.cache
def _derivatives(name):
    """One compiled function: J v and wᵀ J."""

    def both(x, v, w):
        _, pull = jax.vjp(CASES[name].domain.project, x)
        return jax.jvp(CASES[name].domain.project, (x,), (v,))[1], pull(w)[0]

    return jax.jit(both)


def _draw(data, name, dtype="float64"):
    x = data.draw(hnp.arrays(np.float64, CASES[name].shape, elements=entries))
    return np.asarray(x, dtype)


def _normal(seed, name, count):
    return np.random.default_rng(seed).normal(size=(count, *CASES[name].shape))


class TestProjection:
    @each_precision
    @each_case
    @given(data=st.data())
    def test_is_feasible(self, name, dtype, data):
        p = _project(name)(_draw(data, name, dtype))
        assert p.dtype == dtype
        for violation in CASES[name].violations(np.asarray(p, np.float64)):
            assert np.max(violation) <= TOLERANCE[dtype]
        assert contains(CASES[name].domain, p, TOLERANCE[dtype])

    @each_precision
    @each_case
    @given(data=st.data())
    def test_is_idempotent(self, name, dtype, data):
        p = _project(name)(_draw(data, name, dtype))
        np.testing.assert_allclose(_project(name)(p), p, rtol=0, atol=TOLERANCE[dtype])

    @each_precision
    @each_case
    @given(data=st.data())
    def test_is_non_expansive(self, name, dtype, data):
        x, y = _draw(data, name, dtype), _draw(data, name, dtype)
        apart = np.linalg.norm(np.subtract(_project(name)(x), _project(name)(y)))
        assert apart <= np.linalg.norm(x - y) + 10 * TOLERANCE[dtype]

    @each_precision
    @each_case
    @given(data=st.data())
    def test_satisfies_the_variational_inequality(self, name, dtype, data):
        """⟨x - p, q - p⟩ <= 0 for each q of the set: p is the nearest point."""
        x = _draw(data, name, dtype)
        p, q = np.asarray(_project(name)(x)), np.asarray(_project(name)(_draw(data, name, dtype)))
        assert np.sum((x - p) * (q - p)) <= 100 * TOLERANCE[dtype]

    @each_case
    def test_agrees_with_a_convex_solver(self, name):
        solver = domains.ConvexSet(CASES[name].constraints)
        for x in 2 * _normal(0, name, 3):
            expected = np.asarray(solver.project(jnp.asarray(x)))
            np.testing.assert_allclose(_project(name)(x), expected, rtol=0, atol=2e-5)

    @each_case
    def test_under_vmap_is_the_projection_of_each(self, name):
        batch = _normal(1, name, 5)
        together = jax.jit(jax.vmap(lambda x: CASES[name].domain.project(x)))(batch)
        one_by_one = np.stack([_project(name)(x) for x in batch])
        np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-14)

    @each_case
    def test_does_not_hide_a_nan(self, name):
        x = np.full(CASES[name].shape, 0.5)
        x[(0,) * (x.ndim - 1) + (-1,) if x.ndim else ()] = np.nan
        assert np.isnan(_project(name)(x)).any()

    @pytest.mark.parametrize(
        "domain",
        [
            domains.CappedL1(500.0),
            domains.CappedL1(1e-3),
            domains.Simplex(2.0),
            domains.Simplex(1e-3),
        ],
        ids=repr,
    )
    def test_keeps_its_digits_in_single_precision_however_large_the_point(self, domain):
        x = (1e6 + np.random.default_rng(0).normal(size=5000)).astype(np.float32)
        exact = project_onto(domain, x.astype(np.float64))
        np.testing.assert_allclose(project_onto(domain, x), exact, rtol=0, atol=3e-7)

    def test_takes_domains_whose_parameters_are_traced_or_stacked(self):
        x = jnp.array([2.0, 0.75, 0.5])
        radii = np.array([0.5, 1.5, 5.0])
        stacked = eqx.filter_vmap(domains.CappedL1)(jnp.asarray(radii))
        many = jax.jit(jax.vmap(lambda domain: domain.project(x)))(stacked)
        for radius, projected in zip(radii, many, strict=True):
            alone = project_onto(domains.CappedL1(radius), x)
            np.testing.assert_allclose(projected, alone, atol=1e-15)

    def test_refuses_a_leaf_that_the_set_would_reshape(self):
        with pytest.raises(ValueError, match="do not broadcast"):
            domains.Box(0.0, jnp.ones(3)).project(jnp.zeros(()))
        with pytest.raises(ValueError, match="square"):
            domains.SymmetricNonNegative().project(jnp.zeros((1, 2)))


class TestDerivative:
    @each_case
    @given(seed=st.integers(0, 2**32 - 1))
    def test_jvp_is_the_finite_difference(self, name, seed):
        x, v, w = _normal(seed, name, 3)
        step = 1e-6
        ahead, behind = _project(name)(x + step * v), _project(name)(x - step * v)
        here = np.asarray(_project(name)(x))
        left, right = (here - behind) / step, (ahead - here) / step
        assume(np.max(np.abs(left - right)) < 1e-7)  # No kink between the three points.
        jvp, _ = _derivatives(name)(x, v, w)
        np.testing.assert_allclose(jvp, (left + right) / 2, rtol=0, atol=1e-8)

    @each_case
    @given(data=st.data(), seed=st.integers(0, 2**32 - 1))
    def test_vjp_is_the_transpose_of_jvp(self, name, data, seed):
        v, w = _normal(seed, name, 2)
        jvp, vjp = _derivatives(name)(_draw(data, name), v, w)
        assert np.all(np.isfinite(vjp))
        np.testing.assert_allclose(np.vdot(w, jvp), np.vdot(vjp, v), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize(
        ("build", "value"),
        [
            (domains.CappedL1, 1.7),
            (domains.Simplex, 1.3),
            (domains.SymmetricNonNegative, 0.4),
            (lambda upper: domains.Box(-1.0, upper), 0.3),
            (domains.Positive, 0.2),
            (lambda upper: domains.LogBox(0.01, upper), 0.3),
        ],
    )
    def test_is_right_in_the_parameter_of_the_set_too(self, build, value):
        x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 4)))
        weights = jnp.arange(1.0, 17.0).reshape(4, 4)

        @jax.jit
        def read(parameter):
            return jnp.sum(weights * build(parameter).project(x))

        difference = (read(value + 1e-6) - read(value - 1e-6)) / 2e-6
        np.testing.assert_allclose(jax.grad(read)(value), difference, rtol=1e-6)
        assert difference != 0

    def test_of_the_budget_at_full_size_is_the_closed_form(self):
        """On the free set the derivative is I - 11ᵀ / |F|, elsewhere zero."""
        x, v = np.random.default_rng(4).normal(0.5, 1.0, size=(2, 5000))
        domain = domains.CappedL1(500.0)
        p, jvp = jax.jit(lambda x, v: jax.jvp(domain.project, (x,), (v,)))(x, v)
        free = (np.asarray(p) > 0) & (np.asarray(p) < 1)
        assert np.sum(p) == pytest.approx(500.0, abs=1e-10)
        np.testing.assert_allclose(jvp, np.where(free, v - v[free].mean(), 0), atol=1e-13)

    jacobian = staticmethod(jax.jit(jax.jacfwd(lambda domain, x: domain.project(x), argnums=1)))

    @pytest.mark.parametrize(
        ("radius", "x"),
        [(1.0, [3.0, 0.5, 0.5, 0.0]), (2.0, [9.0, 5.0, 0.5, 0.5]), (0.0, [1.0, 1.0, 0.3, -1.0])],
    )
    def test_is_zero_where_whole_entries_use_up_the_budget(self, radius, x):
        domain, x = domains.CappedL1(radius), np.array(x)
        np.testing.assert_array_equal(project_onto(domain, x), np.where(x > 1, 1.0, 0.0))
        np.testing.assert_array_equal(self.jacobian(domain, x), np.zeros((4, 4)))


class TestContains:
    @each_case
    @given(data=st.data())
    def test_is_the_list_of_constraints(self, name, data):
        x = _draw(data, name)
        worst = max(np.max(violation) for violation in CASES[name].violations(x))
        assume(not 1e-9 < worst < 1e-3)
        assert contains(CASES[name].domain, x, 1e-6) == (worst <= 1e-9)

    @each_case
    def test_is_false_for_nan(self, name):
        assert not contains(CASES[name].domain, np.full(CASES[name].shape, np.nan), 1e-6)


class TestChart:
    @each_case
    @given(data=st.data())
    def test_unchart_is_its_inverse(self, name, data):
        domain = CASES[name].domain
        p = _project(name)(_draw(data, name))
        # A part of the smallest normal number is zero: processors are told to leave out those below it.
        np.testing.assert_allclose(domain.unchart(domain.chart(p)), p, rtol=1e-14, atol=1e-300)

    @given(u=st.floats(-600, 600))
    def test_of_positive_is_the_logarithm(self, u):
        domain = domains.Positive()
        x = domain.unchart(jnp.asarray(u))
        assert x > 0
        np.testing.assert_allclose(domain.chart(x), u, rtol=1e-13, atol=1e-13)

    def test_of_a_scaled_domain_counts_in_units(self):
        share = domains.Scaled(domains.Box(-4.0, 12.0))
        assert share.unchart(share.chart(jnp.asarray(0.0)) + 0.25) == pytest.approx(4.0)
        decades = domains.Scaled(domains.LogBox(1e-4, 1.0), np.log(10.0))
        assert decades.unchart(decades.chart(jnp.asarray(1e-3)) + 1.0) == pytest.approx(1e-2)

    def test_makes_one_outer_rate_fit_hyperparameters_of_any_size(self):
        """Adam's first step has the length of its rate: a tenth of each leaf's own unit."""
        dynamics = rfho.Dynamics(lambda hyper: jnp.zeros(()), lambda s, hyper, batch: s)
        problem = rfho.Problem(dynamics, lambda w, hyper, batch: sum(hyper.values()), horizon=1)
        hyper = {"rate": 1e-3, "share": 0.5, "temperature": 40.0}
        domain = {
            "rate": domains.LogBox(1e-5, 1.0),
            "share": domains.UnitInterval(),
            "temperature": domains.Scaled(domains.Box(0.0, 100.0)),
        }
        (report,) = rfho.iterate(problem, hyper, domain=domain, optim=optax.adam(0.1), steps=1)
        after = {"rate": 1e-3 * np.exp(-0.1), "share": 0.4, "temperature": 30.0}
        assert report.hyper == pytest.approx(after, rel=1e-4)

    def test_survives_the_floor_in_every_precision(self):
        for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64):
            lifted = domains.Positive().project(jnp.zeros(2, dtype))
            assert lifted.dtype == dtype
            assert jnp.all(jnp.isfinite(domains.Positive().chart(lifted)))


class TestEmptySet:
    @pytest.mark.parametrize(
        "build",
        [
            lambda: domains.Box(1.0, 0.0),
            lambda: domains.Box(0.0, jnp.array([1.0, -1.0])),
            lambda: domains.Box(float("nan"), 1.0),
            lambda: domains.Box(0.0, float("nan")),
            lambda: domains.Box(float("inf"), float("inf")),
            lambda: domains.Box(-float("inf"), -float("inf")),
            lambda: domains.Simplex(0.0),
            lambda: domains.Simplex(-1.0),
            lambda: domains.Simplex(float("nan")),
            lambda: domains.CappedL1(-0.1),
            lambda: domains.CappedL1(float("nan")),
            lambda: domains.CappedL1(float("inf")),
            lambda: domains.SymmetricNonNegative(-1.0),
            lambda: domains.SymmetricNonNegative(float("nan")),
            lambda: domains.Positive(0.0),
            lambda: domains.Positive(float("nan")),
            lambda: domains.LogBox(1.0, 0.5),
            lambda: domains.Scaled(domains.Box(0.0, float("inf"))),
            lambda: domains.Scaled(domains.Box(1.0, 1.0)),
            lambda: domains.Scaled(domains.Reals(), 0.0),
        ],
    )
    def test_cannot_be_built(self, build):
        with pytest.raises(ValueError, match="expected"):
            build()

    def test_and_neither_can_one_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match="do not broadcast"):
            domains.Box(jnp.zeros(2), jnp.ones(3))
        for build in (domains.CappedL1, domains.Simplex, domains.Positive):
            with pytest.raises(ValueError, match="scalar"):
                build(jnp.ones(2))

    @pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.1, np.inf), (0.1, np.nan)])
    def test_a_log_box_needs_bounds_with_a_logarithm(self, bounds):
        with pytest.raises(ValueError, match="positive, finite bounds: use Box"):
            domains.LogBox(*bounds)

    def test_a_domain_without_a_width_needs_a_unit(self):
        with pytest.raises(ValueError, match="give unit="):
            domains.Scaled(domains.Positive())

    @pytest.mark.parametrize(
        ("domain", "point"),
        [
            (domains.Box(2.0, 2.0), 2.0),
            (domains.CappedL1(0.0), 0.0),
            (domains.Simplex(3.0), 3.0),
        ],
    )
    def test_but_a_single_point_can(self, domain, point):
        assert project_onto(domain, np.array([-7.0])) == point


class TestCheck:
    @pytest.mark.parametrize(
        ("domain", "leaf", "complaint"),
        [
            (domains.Simplex(), 0.5, "shape ()"),
            (domains.Simplex(), np.zeros(0), "shape (0,)"),
            (domains.Box(0.0, UPPER), np.zeros(2), "do not broadcast"),
            (domains.Box(0.0, UPPER), 0.5, "do not broadcast"),
            (domains.SymmetricNonNegative(), np.zeros((2, 3)), "square"),
            (domains.SymmetricNonNegative(), np.zeros(4), "square"),
            (domains.Positive(), 0.0, "log x"),
            (domains.Positive(), np.array([1.0, -2.0]), "-2.0"),
            (domains.LogBox(0.1, 1.0), 0.0, "log x"),
            (domains.LogBox(0.1, UPPER), np.ones(2), "LogBox has lower"),
            (domains.Scaled(domains.Reals(), UPPER), np.ones(2), "unit of shape (3,)"),
            (domains.Scaled(domains.Positive(), 2.0), 0.0, "log x"),
            (domains.Reals(), 3, "int"),
            (domains.Reals(), "relu", "str"),
            (domains.Reals(), jax.random.key(0), "key"),
            (domains.NonNegative(), np.array([True]), "bool"),
            (domains.NonNegative(), np.array([0.0, np.nan]), "1 of 2 entries"),
            (domains.CappedL1(1.0), np.array([np.inf]), "not finite"),
            (domains.Fixed(), float("nan"), "NaN"),
            (domains.ConvexSet(lambda v: [v >= 1, v <= 0]), np.zeros(2), "infeasible"),
            (domains.ConvexSet(lambda v: [cvxpy.sqrt(v) <= 1]), np.zeros(2), "convex"),
        ],
    )
    def test_names_the_path_of_a_leaf_it_refuses(self, domain, leaf, complaint):
        with pytest.raises(ValueError) as caught:
            domain.check(leaf, 'hyper["w"][0]')
        assert str(caught.value).startswith('hyper["w"][0] ')
        assert complaint in str(caught.value)

    @each_case
    def test_accepts_what_the_set_can_hold_even_outside_of_it(self, name):
        CASES[name].domain.check(np.full(CASES[name].shape, 3.0), "hyper")

    def test_of_fixed_accepts_anything(self):
        for leaf in (3, True, float("inf"), "relu", np.arange(3), jax.random.key(0)):
            domains.Fixed().check(leaf, "hyper")


class Layers(eqx.Module):
    first: Any
    second: Any


class TestDomainTree:
    def test_gives_one_domain_to_every_leaf(self):
        hyper = {"lr": 0.1, "l2": [0.0, Layers(1.0, None)]}
        domain = domains.NonNegative()
        assert domains.domain_tree(domain, hyper) == {
            "lr": domain,
            "l2": [domain, Layers(domain, None)],
        }

    def test_broadcasts_a_prefix(self):
        hyper = {"lr": 0.1, "l2": Layers([1.0, 2.0], (3.0,))}
        prefix = {"lr": domains.Positive(), "l2": Layers(domains.Simplex(), domains.Reals())}
        assert domains.domain_tree(prefix, hyper) == {
            "lr": domains.Positive(),
            "l2": Layers([domains.Simplex(), domains.Simplex()], (domains.Reals(),)),
        }

    def test_maps_over_hyper(self):
        hyper = {"lr": jnp.array(-1.0), "mix": jnp.array([1.0, 1.0])}
        tree = domains.domain_tree({"lr": domains.NonNegative(), "mix": domains.Simplex()}, hyper)
        projected = jax.tree.map(
            lambda domain, x: domain.project(x),
            tree,
            hyper,
            is_leaf=lambda node: isinstance(node, domains.AbstractDomain),
        )
        assert projected["lr"] == 0.0
        assert projected["mix"].tolist() == [0.5, 0.5]

    @pytest.mark.parametrize(
        ("prefix", "complaint"),
        [
            ({"lr": domains.Reals()}, 'domain has no entry for hyper["l2"]: add one'),
            (
                {"lr": domains.Reals(), "l2": domains.Reals(), "lR": domains.Reals()},
                'remove or rename domain["lR"]',
            ),
            (
                {"lr": 0.1, "l2": domains.Reals()},
                'domain["lr"] is 0.1, but expected a domain',
            ),
            ({"lr": domains.Positive, "l2": domains.Reals()}, "write for instance Positive()"),
            ({"lr": None, "l2": domains.Reals()}, 'domain["lr"] is None'),
            (
                {"lr": [domains.Reals()], "l2": domains.Reals()},
                'domain["lr"] is a list, but hyper["lr"] is a leaf',
            ),
            (
                {"lr": domains.Reals(), "l2": (domains.Reals(), domains.Reals())},
                'domain["l2"] is a tuple, but hyper["l2"] is a list',
            ),
            (
                {"lr": domains.Reals(), "l2": [domains.Reals()]},
                'domain["l2"] has no entry for hyper["l2"][1]',
            ),
        ],
    )
    def test_names_the_path_of_a_mismatch(self, prefix, complaint):
        with pytest.raises(ValueError) as caught:
            domains.domain_tree(prefix, {"lr": 0.1, "l2": [1.0, 2.0]})
        assert complaint in str(caught.value)


class TestConvexSet:
    disc = domains.ConvexSet(lambda v: [cvxpy.norm(v) <= 1])

    def test_projects_inside_a_compiled_loop(self):
        @jax.jit
        def wander(x):
            return jax.lax.scan(lambda x, _: (self.disc.project(x + 1.0), None), x, None, length=3)

        end, _ = wander(jnp.zeros(4, jnp.float32))
        assert end.dtype == jnp.float32
        np.testing.assert_allclose(end, 0.5, atol=1e-6)

    def test_projects_a_batch_one_after_another(self):
        batch = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        expected = [[0.6, 0.8], [0.3, 0.4]]
        np.testing.assert_allclose(jax.vmap(self.disc.project)(batch), expected, atol=1e-6)
        inside = jax.vmap(lambda x: self.disc.contains(x, 1e-4))(batch)
        assert inside.tolist() == [False, True]

    def test_takes_any_number_of_axes(self):
        share = domains.ConvexSet(lambda v: [v >= 0, cvxpy.sum(v) <= 3])
        np.testing.assert_allclose(share.project(jnp.ones((2, 3, 2))), 0.25, atol=1e-6)

    def test_takes_another_solver(self):
        def solve(problem):
            problem.solve(solver="SCS", eps=1e-9)

        disc = domains.ConvexSet(lambda v: [cvxpy.norm(v) <= 1], solve)
        np.testing.assert_allclose(disc.project(jnp.array([3.0, 4.0])), [0.6, 0.8], atol=1e-6)

    @pytest.mark.parametrize("differentiate", [jax.jacfwd, jax.jacrev])
    def test_says_that_it_has_no_derivative(self, differentiate):
        with pytest.raises(NotImplementedError, match="no derivative"):
            differentiate(self.disc.project)(jnp.ones(2))

    def test_says_how_to_install_what_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cvxpy", None)
        with pytest.raises(ImportError, match=r"pip install 'rfho\[convex\]'"):
            self.disc.check(np.ones(2), "hyper")
