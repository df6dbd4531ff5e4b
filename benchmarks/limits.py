"""The least work that a hypergradient needs, as a ratio to plain training: what measured ratios stand against.

A step of training is one gradient. The way back needs the product of the Hessian with one vector per step,
forward mode one for each of m directions:

    limit with activations kept = 1 + ops(H v) / ops(gradient)
    limit with states kept      = 1 + ops(H v from w) / ops(gradient)
    limit of forward mode       = 1 + m ops(H v) / ops(gradient)
    limit of long reverse mode  = 2 + r + ops(H v from w) / ops(gradient), segments being run anew r times

Operations are XLA's own count of the compiled programs; memory traffic and the optimiser are left out.
"""

from typing import Any, NamedTuple

import jax

import rfho
from rfho.hyper_gradients import (
    AbstractHyperGradient,
    ForwardHyperGradient,
    LongReverseHyperGradient,
    RealTimeHyperGradient,
    ReverseHyperGradient,
)
from rfho.memory import schedule


class Limits(NamedTuple):
    """Operations of a Hessian-vector product by those of a gradient.

    Attributes:
        product: with the activations of the gradient at hand.
        product_anew: from the parameters alone.
    """

    product: float
    product_anew: float

    def least_ratio(self, method: AbstractHyperGradient | None, directions: int) -> float | None:
        """Least time of a whole hypergradient, by plain training; None where it is not counted.

        Args:
            method: None stands for grad over scan.
            directions: the number of hyperparameters.
        """
        if isinstance(method, ForwardHyperGradient | RealTimeHyperGradient):
            return 1 + directions * self.product
        if method is not None and not isinstance(method, ReverseHyperGradient):
            return None
        return 1 + (self.product_anew if _only_states(method) else self.product)


def limits(problem: rfho.Problem, hyper: Any) -> Limits:
    """The limits on a problem whose dynamics descend a loss."""
    dynamics, params, batch = problem.dynamics, problem.init(hyper).params, problem.train_batch(0)
    whole = problem.whole(hyper)

    def gradients(params: Any) -> Any:
        return jax.grad(dynamics.loss, argnums=(0, 1))(params, whole, batch)

    # The batch is an argument and not a constant, or the compiler would compute with it beforehand.
    gradient = _operations(lambda w, b: dynamics.gradient(w, whole, b), params, batch)
    _, push = jax.linearize(gradients, params)
    product = _operations(lambda push, v: push(v), push, params)
    anew = _operations(lambda w, v: jax.jvp(gradients, (w,), (v,))[1], params, params)
    return Limits(product / gradient, anew / gradient)


def runs_anew(method: LongReverseHyperGradient, horizon: int) -> float:
    """How often a segment of a long run is run anew, on average, to reach the starts of later ones."""
    if method.slots is None:
        return 0.0
    segments = -(-horizon // method.segment)
    rows, table = schedule(segments, method.slots)
    return float(table.length.sum() + (rows.t - rows.start).sum()) / segments


def _only_states(method: ReverseHyperGradient | None) -> bool:
    """Whether activations are to be computed again on the way back."""
    policy = method and method.checkpoint
    again = isinstance(policy, rfho.Recompute | rfho.Binomial)
    return again or (policy is not None and policy.keeps() is rfho.Keep.STATES)


def _operations(function: Any, *arguments: Any) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]
