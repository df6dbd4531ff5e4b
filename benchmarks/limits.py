"""The least work that a hypergradient needs, as a ratio to plain training: what measured ratios stand against.

A step of training is one gradient. The way back needs the product of the Hessian with one vector per step,

    limit with activations kept = 1 + ops(H v) / ops(gradient)
    limit with states kept      = 1 + ops(H v from w) / ops(gradient)

Operations are XLA's own count of the compiled programs; memory traffic and the optimiser are left out.
"""

from typing import Any, NamedTuple

import jax

import rfho


class Limits(NamedTuple):
    """Least ratios to plain training."""

    activations_kept: float
    states_kept: float


def limits(problem: rfho.Problem, hyper: Any) -> Limits:
    """The limits of reverse mode on a problem whose dynamics are a `Descent`."""
    dynamics = problem.dynamics
    if not isinstance(dynamics, rfho.Descent):
        raise TypeError(f"the limit is counted for rfho.Descent, not for {type(dynamics).__name__}")
    params = problem.init(hyper).params
    batch = problem.train_batch(0)

    def gradients(params: Any) -> Any:
        return jax.grad(dynamics.loss, argnums=(0, 1))(params, hyper, batch)

    # The batch is an argument and not a constant, or the compiler would compute with it beforehand.
    gradient = _operations(lambda w, b: dynamics.gradient(w, hyper, b), params, batch)
    _, push = jax.linearize(gradients, params)
    product = _operations(lambda push, v: push(v), push, params)
    anew = _operations(lambda w, v: jax.jvp(gradients, (w,), (v,))[1], params, params)
    return Limits(1 + product / gradient, 1 + anew / gradient)


def _operations(function: Any, *arguments: Any) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]
