"""Parameters whose gradient is zero in exact arithmetic, and that move nevertheless: a bias before a normalisation.

    ‖∇_b L(w) - ∇_b L(w')‖  ~  ‖∇_b L(w)‖,    w' = w (1 + 16 ε ξ)

Between points that rounding cannot tell apart a gradient changes by ε of itself, unless it is rounding and nothing
else. An optimiser that divides a gradient by its own size, as Adam does, makes steps of full size of it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.checks.diagnosis.case import Case
from rfho.checks.diagnosis.smoothness import Smoothness
from rfho.checks.line import unit_normal
from rfho.dynamics import AbstractDescent
from rfho.dynamics.variables import like, parted
from rfho.typing import Params

_APART = 16.0  # times ε: parameters all but the same
_CHANGED = 0.1  # of its size, by which no gradient changes between such points
_MUCH = 0.1  # of the hypergradient: where it misleads


def noise_findings(case: Case, smoothness: Smoothness, key: Array) -> list[Finding]:
    """One finding for all such parameters, if the hypergradient is seen to be rough; `Descent` only."""
    dynamics = case.problem.dynamics
    if not (smoothness.persists and isinstance(dynamics, AbstractDescent)):
        return []
    paths = [
        tree.path_of(path, "params")
        for path, noisy in jax.tree_util.tree_leaves_with_path(_noisy(case, dynamics, key))
        if noisy
    ]
    if not paths:
        return []
    message = (
        f"the gradient of {', '.join(paths)} is zero but for rounding, and the optimiser divides it by its size: "
        "it moves at random, and with it the hypergradient, which differs between near points by "
        f"{100 * smoothness.jump_nearer:.2g} %. Leave it out (a bias before a normalisation, or of the keys of "
        "attention), give the optimiser a larger eps, or compute in float64"
    )
    severity = Severity.WARNING if smoothness.jump_nearer > _MUCH else Severity.NOTE
    return [Finding(Kind.NOISE, Where(leaf=paths[0]), message, severity)]


@eqx.filter_jit
def _noisy(case: Case, dynamics: AbstractDescent, key: Array) -> Params:
    """For each parameter whether its gradient is noise, after the first step."""
    problem = case.problem
    state = problem.step(problem.init(case.hyper), case.hyper, 0)
    start = state.params
    params = parted(start).params
    drawn = unit_normal(params, key)
    near = jax.tree.map(lambda w, d: w + _APART * jnp.finfo(w.dtype).eps * d, params, drawn)

    def gradient(params: Params) -> Params:
        whole = like(start, params, parted(start).carried)
        return dynamics.gradient(whole, problem.whole(case.hyper), problem.train_batch(0))

    def is_noise(here: Array, there: Array) -> Array:
        return tree.norm(here - there) > _CHANGED * (tree.norm(here) + tree.norm(there))

    return jax.tree.map(is_noise, gradient(params), gradient(near))
