"""``python -m benchmarks.implicit``: how wrong implicit hypergradients say they are, and how wrong they are.

What they cost is part P5 of ``python -m benchmarks``.

P5: softmax regression, 5000 images of 28 x 28 and 10 classes, one L2 penalty exp(λ_i) for each of its 7840
parameters; 200 steps of gradient descent, then 20 products. Every solver's answer is compared with
that at the exact minimiser, which Newton's method finds. `docs/explanation/implicit.md` quotes what it
prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.limits import limits
from benchmarks.measure import Measured, Program, in_turn, measure
from benchmarks.problems import Benchmark, images
from rfho import solvers
from rfho.hyper_gradients import ImplicitHyperGradient, ReverseHyperGradient

RATE, PRODUCTS = 0.1, 20


def penalties(horizon: int = 200, examples: int = 5000) -> Benchmark:
    """P5: full-batch gradient descent, one penalty per parameter."""

    def cross_entropy(params: Any, hyper: Any, batch: Any) -> jax.Array:
        logits = batch[0] @ params.T
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    def loss(params: Any, hyper: Any, batch: Any) -> jax.Array:
        return cross_entropy(params, hyper, batch) + 0.5 * jnp.sum(jnp.exp(hyper) * params**2)

    def flat(seed: int) -> tuple[jax.Array, jax.Array]:
        x, y = images(examples, seed)
        return jnp.asarray(x.reshape(examples, -1)), jnp.asarray(y)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(RATE), jnp.zeros((10, 784)))
    problem = rfho.Problem(dynamics, cross_entropy, flat(1), flat(2), horizon)
    return Benchmark("P5", problem, jnp.full((10, 784), float(np.log(0.01))))


def main() -> None:
    """Prints how wrong each answer is, and how wrong it says it is."""
    benchmark = penalties()
    exact = at_the_minimiser(benchmark)
    print(
        f"{'solver':<30}{'products':>9}{'residual':>10}{'says':>8}{'is wrong by':>13}{'bound':>8}"
    )
    for name, solver in candidates().items():
        method = ImplicitHyperGradient(solver, warm_start=False)
        estimate = rfho.hyper_gradient(benchmark.problem, benchmark.hyper, method)
        stats = estimate.aux.stats
        error = jnp.linalg.norm(estimate.hypergradient - exact) / jnp.linalg.norm(exact)
        print(
            f"{name:<30}{products_of(solver, benchmark):>9}{stats['residual']:>10.2g}"
            f"{stats['relative_error']:>8.1%}{error:>13.1%}{stats['relative_error_bound']:>8.2g}"
        )


def candidates() -> dict[str, solvers.AbstractSolver]:
    """Twenty products each, and one answer that is solved to the end."""
    return {
        f"Neumann, {PRODUCTS} terms": solvers.Neumann(terms=PRODUCTS, rate=RATE),
        "one step": solvers.OneStep(rate=RATE),
        f"Nyström, rank {PRODUCTS}": solvers.Nystrom(rank=PRODUCTS, damping=0.01),
        f"CG, {PRODUCTS} products": solvers.CG(max_products=PRODUCTS),
        "CG to 1e-6": solvers.CG(max_products=1000),
    }


def products_of(solver: solvers.AbstractSolver, benchmark: Benchmark) -> int:
    """The products that the solver makes, without an audit."""
    method = ImplicitHyperGradient(solver, warm_start=False, audit=None)
    estimate = rfho.hyper_gradient(benchmark.problem, benchmark.hyper, method)
    return int(estimate.aux.stats["products"])


def at_the_minimiser(benchmark: Benchmark) -> jax.Array:
    """The hypergradient where ∂_w L = 0 to rounding: Newton's method from where training ends."""
    problem, hyper = benchmark.problem, benchmark.hyper
    condition, solver = rfho.Stationary(), solvers.CG(max_products=1000)

    @eqx.filter_jit
    def newton(problem: rfho.Problem, state: Any) -> Any:
        system = condition.system(problem, hyper, state)
        step = solver.solve(
            system.operator, -system.slope, jnp.zeros_like(system.slope), tolerance=1e-5
        )
        return condition.replaced(state, state.params + step.solution)

    state = trained(problem, hyper)
    for _ in range(10):
        state = newton(problem, state)
    system, reading = condition.system(problem, hyper, state), problem.read(state, hyper)
    v = reading.by_state.params
    q = solver.solve(system.operator, v, jnp.zeros_like(v), tolerance=1e-6).solution
    print(f"‖∂_w L‖ at the minimiser: {float(jnp.linalg.norm(system.slope)):.1e}")
    return reading.by_hyper - system.cross(q)


def costs(*, rounds: int) -> list[Measured]:
    """As many products as training steps, and whole estimates beside the training that they need."""
    _, problem, hyper = penalties()
    state = trained(problem, hyper)
    system = rfho.Stationary().system
    solver = solvers.CG(max_products=PRODUCTS)
    v = problem.read(state, hyper).by_state.params

    def steps(given: Any, memory: None) -> tuple[Any, None]:
        problem, hyper = given
        step = lambda t, state: problem.step(state, hyper, t)  # noqa: E731
        return jax.lax.fori_loop(0, PRODUCTS, step, state), memory

    def products(given: Any, memory: None) -> tuple[Any, None]:
        operator = system(*given, state).operator
        return solver.solve(operator, v, jnp.zeros_like(v), tolerance=0.0), memory

    single = {
        f"plain training, {PRODUCTS} steps": Program(steps, None),
        f"{PRODUCTS} products": Program(products, None),
    }
    methods = {
        "implicit, CG(20)": ImplicitHyperGradient(solver, audit=None),
        "implicit, CG(20), audited": ImplicitHyperGradient(solver),
        "StoreAll(STATES)": ReverseHyperGradient(rfho.StoreAll(rfho.Keep.STATES)),
    }
    training, taken = in_turn(single, (problem, hyper), rounds=rounds)
    taken = taken._replace(least_ratio=limits(problem, hyper).product)
    return [training, taken, *measure(problem, hyper, methods, rounds=rounds)]


@eqx.filter_jit
def trained(problem: rfho.Problem, hyper: Any) -> Any:
    """The state after the problem's steps."""
    step = lambda t, state: problem.step(state, hyper, t)  # noqa: E731
    return jax.lax.fori_loop(0, problem.horizon, step, problem.init(hyper))


if __name__ == "__main__":
    main()
