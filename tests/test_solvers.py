"""What every linear solver promises, and what a few products tell about a matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from rfho.solvers import (
    CG,
    GMRES,
    BiCGStab,
    Neumann,
    NormalEquations,
    Nystrom,
    OneStep,
    Operator,
)
from rfho.solvers import lanczos as spectrum

SIZE = 8
TREE = {"w": jnp.zeros((3, 2)), "b": (jnp.zeros(()), jnp.zeros(1))}

EXACT = {
    "CG": CG(),
    "NormalEquations": NormalEquations(),
    "GMRES": GMRES(),
    "BiCGStab": BiCGStab(),
    "Neumann": Neumann(terms=500, rate=0.4),
    "Nystrom": Nystrom(rank=SIZE, damping=1e-9),
}
WITHOUT_SYMMETRY = {name: EXACT[name] for name in ("NormalEquations", "GMRES", "BiCGStab")}
APPROXIMATE = {"OneStep": OneStep(rate=0.4), "Nystrom": Nystrom(rank=3, damping=0.1)}


def spread_matrix(seed=0, low=0.1, high=4.0):
    """A symmetric matrix with eigenvalues from low to high."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    return vectors @ np.diag(np.linspace(low, high, SIZE)) @ vectors.T


def lopsided_matrix(seed=0):
    rng = np.random.default_rng(seed)
    return spread_matrix(seed, low=1.0) + 0.5 * rng.normal(size=(SIZE, SIZE))


def operator_of(matrix):
    """A matrix that acts on pytrees."""

    def product(matrix, q):
        flat, unravel = ravel_pytree(q)
        return unravel(jnp.asarray(matrix, flat.dtype) @ flat)

    return Operator(lambda q: product(matrix, q), lambda q: product(matrix.T, q))


def right_side(seed=0):
    flat, unravel = ravel_pytree(TREE)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=flat.size)))


def solve(solver, matrix, right, start=TREE, tolerance=1e-12):
    return compiled_solve(solver, jnp.asarray(matrix), right, start, jnp.asarray(tolerance))


@eqx.filter_jit
def compiled_solve(solver, matrix, right, start, tolerance):
    return solver.solve(operator_of(matrix), right, start, tolerance=tolerance)


def flat(vector):
    return np.asarray(ravel_pytree(vector)[0])


@pytest.mark.parametrize("solver", EXACT.values(), ids=EXACT)
def test_a_symmetric_positive_definite_system_is_solved_on_any_pytree(solver):
    matrix, right = spread_matrix(), right_side()
    found = solve(solver, matrix, right)
    np.testing.assert_allclose(
        flat(found.solution), np.linalg.solve(matrix, flat(right)), rtol=1e-6
    )
    assert jax.tree.structure(found.solution) == jax.tree.structure(right)


@pytest.mark.parametrize("solver", WITHOUT_SYMMETRY.values(), ids=WITHOUT_SYMMETRY)
def test_a_system_without_symmetry_is_solved(solver):
    matrix, right = lopsided_matrix(), right_side()
    found = solve(solver, matrix, right)
    np.testing.assert_allclose(
        flat(found.solution), np.linalg.solve(matrix, flat(right)), rtol=1e-6
    )


@pytest.mark.parametrize("solver", (EXACT | APPROXIMATE).values(), ids=EXACT | APPROXIMATE)
def test_the_residual_is_that_of_the_answer(solver):
    matrix, right = spread_matrix(), right_side()
    found = solve(solver, matrix, right, tolerance=1e-2)
    left = flat(right) - matrix @ flat(found.solution)
    true = np.linalg.norm(left) / np.linalg.norm(flat(right))
    np.testing.assert_allclose(found.residual, true, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("solver", (EXACT | APPROXIMATE).values(), ids=EXACT | APPROXIMATE)
def test_products_are_counted(solver):
    made = []
    matrix = jnp.asarray(spread_matrix())

    def product(q):
        jax.debug.callback(lambda: made.append(1))
        return matrix @ q

    right = jnp.asarray(flat(right_side()))
    operator = Operator(product, product)
    found = solver.solve(operator, right, jnp.zeros(SIZE), tolerance=1e-6)
    jax.effects_barrier()
    if isinstance(solver, GMRES):  # it counts whole cycles
        assert len(made) <= int(found.products)
    else:
        assert int(found.products) == len(made)


@pytest.mark.parametrize(
    "solver", [CG(4), NormalEquations(6), BiCGStab(6)], ids=["CG", "NormalEquations", "BiCGStab"]
)
def test_no_more_products_are_made_than_were_granted(solver):
    found = solve(solver, spread_matrix(), right_side())
    assert int(found.products) <= solver.max_products
    assert 0 < found.residual < 1


@pytest.mark.parametrize("solver", EXACT.values(), ids=EXACT)
def test_nothing_to_solve_gives_zero(solver):
    found = solve(solver, spread_matrix(), TREE)
    assert not np.any(flat(found.solution))
    assert found.residual == 0


def test_the_solution_as_a_start_costs_two_products():
    matrix, right = spread_matrix(), right_side()
    solution = solve(CG(), matrix, right).solution
    assert int(solve(CG(), matrix, right, start=solution, tolerance=1e-6).products) == 2


def test_conjugate_gradients_stop_at_negative_curvature_and_say_so():
    matrix = spread_matrix(low=-1.0)
    found = solve(CG(), matrix, right_side())
    assert found.curvature < 0
    assert np.all(np.isfinite(flat(found.solution)))


def test_conjugate_gradients_work_in_float32_where_curvatures_are_small():
    """The case that made Lineax's give up after one step."""
    diagonal = jnp.logspace(-3, 0, 7840, dtype=jnp.float32)
    operator = Operator(lambda q: diagonal * q, lambda q: diagonal * q)
    right = jnp.ones_like(diagonal)
    found = CG(300).solve(operator, right, jnp.zeros_like(right), tolerance=1e-3)
    assert found.residual < 1.1e-3
    assert found.solution.dtype == jnp.float32


def test_neumann_is_the_series_cut_off():
    matrix, right, rate = spread_matrix(), right_side(), 0.3
    found = solve(Neumann(terms=7, rate=rate), matrix, right)
    powers = [np.linalg.matrix_power(np.eye(SIZE) - rate * matrix, j) for j in range(7)]
    np.testing.assert_allclose(flat(found.solution), rate * sum(powers) @ flat(right), rtol=1e-12)


def test_one_step_is_the_first_term_of_the_series():
    right = right_side()
    one = solve(OneStep(0.3), spread_matrix(), right)
    series = solve(Neumann(terms=1, rate=0.3), spread_matrix(), right)
    np.testing.assert_array_equal(flat(one.solution), flat(series.solution))


def test_nystrom_inverts_the_approximation_of_its_columns():
    matrix, right, damping = spread_matrix(), right_side(), 0.1
    found = solve(Nystrom(rank=3, damping=damping), matrix, right)
    drawn = np.asarray(jax.random.choice(jax.random.key(0), SIZE, (3,), replace=False))
    columns = matrix[:, drawn]
    low_rank = columns @ np.linalg.inv(matrix[np.ix_(drawn, drawn)]) @ columns.T
    expected = np.linalg.solve(damping * np.eye(SIZE) + low_rank, flat(right))
    np.testing.assert_allclose(flat(found.solution), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CG(max_products=1), "max_products=1"),
        (lambda: NormalEquations(max_products=2), "max_products=2"),
        (lambda: GMRES(restart=0), "restart=0"),
        (lambda: BiCGStab(max_products=True), "max_products=True"),
        (lambda: Neumann(terms=0, rate=0.1), "terms=0"),
        (lambda: Neumann(terms=3, rate=-0.1), "rate=-0.1"),
        (lambda: OneStep(rate=float("nan")), "rate=nan"),
        (lambda: Nystrom(rank=3, damping=0.0), "damping=0.0"),
        (lambda: Nystrom(rank=3, damping=0.1, seed=-1), "seed=-1"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_lanczos_finds_both_ends_of_the_spectrum():
    rng = np.random.default_rng(0)
    diagonal = jnp.asarray(np.sort(rng.uniform(1, 50, 300)))
    start = jnp.asarray(rng.normal(size=300))
    seen = spectrum.lanczos(lambda q: diagonal * q, start, 25)
    assert diagonal[0] <= seen.smallest <= diagonal[0] + 2 * seen.below
    assert diagonal[-1] - 2 * seen.above <= seen.largest <= diagonal[-1] + 1e-9
    assert seen.below < 0.5


@pytest.mark.parametrize("products", [SIZE, 3 * SIZE])
def test_lanczos_is_exact_once_the_space_is_exhausted(products):
    matrix = spread_matrix(low=0.1, high=4.0)
    seen = spectrum.lanczos(operator_of(matrix).apply, right_side(), products)
    np.testing.assert_allclose([seen.smallest, seen.largest], [0.1, 4.0], rtol=1e-10)
    np.testing.assert_allclose([seen.below, seen.above], 0.0, atol=1e-6)


def test_a_number_is_a_matrix_too():
    seen = spectrum.lanczos(lambda q: 3 * q, jnp.ones(()), 4)
    np.testing.assert_allclose([seen.smallest, seen.largest], 3.0)


def test_the_spectral_radius_of_a_rotation_is_its_factor():
    turn = 0.9 * jnp.array([[0.0, -1.0], [1.0, 0.0]])
    radius = spectrum.radius(lambda q: turn @ q, jnp.array([1.0, 0.3]), 20)
    np.testing.assert_allclose(radius, 0.9, rtol=1e-12)


def test_asymmetry_is_rounding_for_a_symmetric_matrix_and_of_order_one_for_another():
    left, right = (spectrum.random_direction(TREE, seed) for seed in (0, 1))
    skew = np.triu(np.ones((SIZE, SIZE)), 1)
    skew = skew - skew.T
    assert spectrum.asymmetry(operator_of(spread_matrix()).apply, left, right) < 1e-14
    assert spectrum.asymmetry(operator_of(skew).apply, left, right) > 0.1
