"""All exact methods give the same hypergradient: reverse under every checkpoint policy, forward, and
the truncated and online methods where they are exact.

They share the derivative rules of JAX and little else: reverse mode pulls back step by step with a
way of its own for each thing that can be kept, forward mode pushes tangents, online methods carry a
run along.
"""

import equinox as eqx
import jax
import numpy as np
import pytest
from compiler import CHEAPLY, UNOPTIMISED
from jax.flatten_util import ravel_pytree
from problems import FAMILIES, members

import rfho
from rfho import hyper_gradients as methods

MEMBERS = 36

# These programs run once and are tiny: what the compiler would save in running it spends many times over.
QUICKLY = {**UNOPTIMISED, **CHEAPLY}


def exact_methods(horizon):
    reverse = methods.ReverseHyperGradient
    return {
        "store states": reverse(rfho.StoreAll(rfho.Keep.STATES)),
        "store gradients": reverse(rfho.StoreAll(rfho.Keep.GRADIENTS)),
        "store residuals": reverse(rfho.StoreAll(rfho.Keep.RESIDUALS)),
        "recompute": reverse(rfho.Recompute()),
        "binomial": reverse(rfho.Binomial(2)),
        "full window": methods.TruncatedHyperGradient(horizon + 3),
        "full online window": methods.OnlineTruncatedHyperGradient(horizon, horizon),
        "forward in chunks": methods.ForwardHyperGradient(chunk=2),
        "real time, read once": methods.RealTimeHyperGradient(horizon),
    }


def test_there_are_enough_problems():
    assert len(FAMILIES) * MEMBERS >= 500


@pytest.mark.parametrize("draw", FAMILIES, ids=lambda draw: draw.__name__)
def test_exact_methods_agree_to_rounding(draw):
    problem, hyper = members(draw, MEMBERS)
    values, gradients = {}, {}
    for name, method in exact_methods(problem.horizon).items():
        values[name], gradients[name] = estimates(problem, hyper, method)
    expected = gradients["store states"]
    norm = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.all(np.isfinite(expected))
    assert np.all(norm > 0)
    for name, gradient in gradients.items():
        worst = np.max(np.abs(gradient - expected) / norm)
        assert worst < 1e-10, f"{name} differs from reverse mode by {worst:.1e}"
        np.testing.assert_allclose(values[name], values["store states"], rtol=1e-12, err_msg=name)


def estimates(problem, hyper, method):
    """Values and flat hypergradients of all members, one row each."""
    arrays, rest = eqx.partition((problem, hyper), eqx.is_array)

    def one(arrays):
        problem, hyper = eqx.combine(arrays, rest)
        estimate, _ = method.estimate(problem, hyper, method.init(problem, hyper))
        return ravel_pytree(estimate.value)[0], ravel_pytree(estimate.hypergradient)[0]

    program = jax.jit(jax.vmap(one), compiler_options=QUICKLY)
    return jax.tree.map(np.asarray, program(arrays))
