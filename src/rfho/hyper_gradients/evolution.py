"""Evolution strategies on windows of training: for dynamics too chaotic, or too rough, to differentiate.

P pairs of particles train at λ + ε and λ - ε. What a pair's objectives differ by, times what
perturbed them, is on average the gradient of the objective smoothed by N(0, σ²):

    ĝ = 1/P Σ_p ξ_p / σ² (E(w_t⁺) - E(w_t⁻)) / 2

Particles train on from window to window. Persistent evolution strategies (alg. 2 of
arXiv 2112.13835) draw ε anew in each and accumulate ξ = Σ ε over the run; ES-Single
(arXiv 2304.11153) keeps one ε = ξ for all of it. Either way nothing is cut off: unlike
`TruncatedHyperGradient`, an estimate after any window knows of all the windows before.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from rfho._engines.forward import coordinates
from rfho._engines.reverse import roll
from rfho._programs import trees as tree
from rfho.choice.forecast import Forecast, Parts
from rfho.errors import positive_int
from rfho.hyper_gradients.base import AbstractHyperGradient, Estimate, aux_of, evaluated
from rfho.memory import Span
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State

Noise = Float[Array, "pairs m"]
"""One offset of λ for each pair."""


class EvolutionRun(NamedTuple):
    """Where the particles stand.

    Attributes:
        state: s_t, with leading axes of both signs and P pairs.
        noise: ε, by which the plus side of each pair is off λ in this window.
        perturbation: ξ, the sum of all ε of this run.
        t: steps done of this run.
        draws: windows done in all.
    """

    state: State
    noise: Noise
    perturbation: Noise
    t: Int[Array, ""]
    draws: Int[Array, ""]


class AbstractEvolution(AbstractHyperGradient):
    """Pairs of particles that train on from window to window; what is left open is how they are perturbed."""

    pairs: int = eqx.field(static=True)
    sigma: PyTree
    every: int = eqx.field(static=True)
    key: Array

    def __init__(self, pairs: int, sigma: PyTree, *, every: int, key: Array | int) -> None:
        self.pairs, self.every = _checked(type(self).__name__, pairs, sigma, every=every)
        self.sigma = sigma
        self.key = tree.as_key(key, type(self).__name__)

    def cost(self, parts: Parts) -> Forecast:
        """Δ steps of 2 P particles, side by side."""
        one = parts.of_training(self.every)
        return Forecast(2 * self.pairs * one.time, 2 * self.pairs * one.memory)

    def init(self, problem: AbstractMoment, hyper: Hyper) -> EvolutionRun:
        """All particles before their first step."""
        return _at_start(problem, hyper, pairs=self.pairs, every=self.every)

    @abc.abstractmethod
    def moved(self, run: EvolutionRun, fresh: Noise, begins: Array) -> EvolutionRun:
        """The run with the ε and ξ of its next window, from ``fresh`` draws of N(0, σ²).

        Args:
            run: where the particles stand.
            fresh: independent noise, one row per pair.
            begins: whether the window is the first of a training run.
        """

    def estimate(
        self, problem: AbstractMoment, hyper: Hyper, carry: EvolutionRun
    ) -> tuple[Estimate, EvolutionRun]:
        """One further window of all particles."""
        begins = _begins(problem, carry, self.every)
        sigma = _spread(self.sigma, hyper)
        moved = self.moved(carry, sigma * _normal(self.key, carry), begins)
        return _estimate(problem, hyper, moved, begins=begins, sigma=sigma, every=self.every)

    def conclude(
        self, problem: AbstractMoment, hyper: Hyper, carry: EvolutionRun
    ) -> tuple[PyTree, Params]:
        """f(λ) and w_T of a plain run: the particles are all off λ."""
        return evaluated(problem, hyper)

    def limit(self, problem: AbstractMoment) -> None:
        """Any number of estimates: runs follow each other."""


class PersistentEvolutionHyperGradient(AbstractEvolution):
    r"""Persistent evolution strategies: unbiased estimates at every Δ-th step, without derivatives.

    Each estimate is one of :math:`\nabla E(w_t, \lambda)` at t = Δ, 2Δ, … of a run; their sum over
    the run follows the mean of the objective over it, not its end alone. After ⌊T/Δ⌋ windows all
    particles start again. With ``every=horizon`` it is the plain antithetic evolution strategy for
    E(w_T, λ).

    .. math:: \hat g_t = \frac{1}{P} \sum_p \frac{\xi_p}{\sigma^2} \cdot
              \frac{E(w_t^+) - E(w_t^-)}{2}, \quad \xi_p = \sum_{\text{windows}} \varepsilon_p

    Args:
        pairs: P >= 2, pairs of particles.
        sigma: σ, the standard deviation of ε: a number, or a tree prefix of λ with numbers.
            λ ± ε must make sense to the dynamics, wherever their domain ends.
        every: Δ, steps per window, at most the horizon.
        key: a JAX random key, or an int as its seed.

    Cost:
        Time of 2 P Δ steps per estimate; memory 2 P states. Unbiased for the smoothed objective at
        fixed λ, and so for ∇E itself where E is quadratic in λ; the variance grows with the number
        of windows. Needs no derivatives: kinks, jumps and integers are welcome.

    Aux:
        ``params`` are those of the first particle. ``stats["standard_error"]``: of ĝ, in norm, from
        the spread over pairs; ``stats["t"]``: steps done of this run.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.PersistentEvolutionHyperGradient(
        ...     pairs=50, sigma=0.01, every=10, key=0
        ... )
    """

    def moved(self, run: EvolutionRun, fresh: Noise, begins: Array) -> EvolutionRun:
        """Noise of its own for every window; ξ is the sum of all."""
        perturbation = jnp.where(begins, 0, run.perturbation) + fresh
        return run._replace(noise=fresh, perturbation=perturbation)


class SingleEvolutionHyperGradient(AbstractEvolution):
    r"""ES-Single: as `PersistentEvolutionHyperGradient`, with one perturbation per particle for all of its run.

    Its variance does not grow with the number of windows. The smoothed objective is that of one λ + ε
    for all steps, where persistent evolution smooths over each window's λ apart. While λ moves
    within a run, its estimate takes all the run as if at the present λ.

    Args:
        pairs: P >= 2, pairs of particles.
        sigma: σ, the standard deviation of ε: a number, or a tree prefix of λ with numbers.
        every: Δ, steps per window, at most the horizon.
        key: a JAX random key, or an int as its seed.

    Cost:
        As `PersistentEvolutionHyperGradient`, with less variance from the second window on.

    Aux:
        As `PersistentEvolutionHyperGradient`.

    Example:
        >>> import rfho
        >>> method = rfho.hyper_gradients.SingleEvolutionHyperGradient(
        ...     pairs=50, sigma=0.01, every=10, key=0
        ... )
    """

    def moved(self, run: EvolutionRun, fresh: Noise, begins: Array) -> EvolutionRun:
        """One noise for all windows of a run, which is ξ too."""
        noise = jnp.where(begins, fresh, run.noise)
        return run._replace(noise=noise, perturbation=noise)


def _at_start(problem: AbstractMoment, hyper: Hyper, *, pairs: int, every: int) -> EvolutionRun:
    if every > problem.horizon:
        raise ValueError(
            f"every is {every}, but a window cannot be longer than the horizon of {problem.horizon} steps"
        )
    repeat = lambda leaf: jnp.broadcast_to(leaf, (2, pairs, *jnp.shape(leaf)))  # noqa: E731
    flat, _ = ravel_pytree(hyper)
    still, zero = jnp.zeros((pairs, flat.size), flat.dtype), jnp.zeros((), jnp.int32)
    return EvolutionRun(jax.tree.map(repeat, problem.init(hyper)), still, still, zero, zero)


def _begins(problem: AbstractMoment, run: EvolutionRun, every: int) -> Array:
    """Whether a new run begins: at first, and when no whole window is left."""
    return (run.t == 0) | (run.t + every > problem.horizon)


def _normal(key: Array, run: EvolutionRun) -> Noise:
    key = jax.random.fold_in(key, run.draws)
    return jax.random.normal(key, run.noise.shape, run.noise.dtype)


def _estimate(
    problem: AbstractMoment,
    hyper: Hyper,
    run: EvolutionRun,
    *,
    begins: Array,
    sigma: Array,
    every: int,
) -> tuple[Estimate, EvolutionRun]:
    flat, unravel = ravel_pytree(hyper)
    t = jnp.where(begins, 0, run.t)
    shifted = problem.later(t)

    def trained(offset: Float[Array, " m"], state: State) -> tuple[State, Array]:
        perturbed = unravel(flat + offset)
        fresh = problem.init(perturbed)
        state = jax.tree.map(lambda new, old: jnp.where(begins, new, old), fresh, state)
        state = roll(shifted, perturbed, state, span=Span(0, every))
        values = problem.evaluate(problem.dynamics.output(state), perturbed)
        leaves = jax.tree.leaves(values)
        return state, leaves[0] if len(leaves) == 1 else jnp.stack(leaves)

    both = jnp.stack([run.noise, -run.noise])
    state, values = jax.vmap(jax.vmap(trained))(both, run.state)
    difference = (values[0] - values[1]) / 2
    score = run.perturbation / sigma**2
    by_pair = jax.vmap(lambda d, ξ: jnp.multiply.outer(d, ξ))(difference, score)
    estimate = jnp.mean(by_pair, axis=0)
    spread = jnp.linalg.norm(by_pair - estimate)
    pairs = by_pair.shape[0]
    stats = {"standard_error": spread / np.sqrt(pairs * (pairs - 1)), "t": t + every}
    first = jax.tree.map(lambda leaf: leaf[0, 0], state)
    aux = aux_of(problem, first, stats)
    value = problem.values(jnp.mean(values, axis=(0, 1)))
    hypergradient = coordinates(hyper).assemble(problem, estimate)
    after = run._replace(state=state, t=t + every, draws=run.draws + 1)
    return Estimate(value, hypergradient, aux), after


def _spread(sigma: PyTree, hyper: Hyper) -> Float[Array, " m"]:
    fill = lambda s, leaf: jnp.broadcast_to(jnp.asarray(s, leaf.dtype), leaf.shape)  # noqa: E731
    return ravel_pytree(jax.tree.map(fill, jax.tree.broadcast(sigma, hyper), hyper))[0]


def _checked(name: str, pairs: Any, sigma: PyTree, *, every: Any) -> tuple[int, int]:
    if positive_int(pairs, "pairs", name) < 2:
        raise ValueError(f"{name} got pairs=1, but their spread tells the error: choose 2 or more")
    for path, leaf in jax.tree_util.tree_leaves_with_path(sigma):
        if isinstance(leaf, int | float) and not leaf > 0:
            raise ValueError(
                f"{name} got {tree.path_of(path, 'sigma')}={leaf!r}, but it must be positive"
            )
    return pairs, positive_int(every, "every", name)
