"""Models of Equinox."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from equinox import nn

from rfho.adapters.network import Network, network_of
from rfho.typing import PyTree

Call = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
"""``(model, state, inputs, key) -> (outputs, state)``; the state is None for a model without one."""


def network(model: Any, state: Any = None, *, call: Call | None = None) -> Network:
    """An Equinox model as a `Network`; ``equinox.combine(params, model)`` is the trained model.

    Activations, sizes and whatever else is no floating-point array stay as they are.

    Args:
        model: an `equinox.Module` for one example: ``model(x)`` or, with a state, ``model(x, state)``, with
            ``key=`` if it draws. It is mapped over the batch under the axis name of its batch normalisation.
        state: what `equinox.nn.make_with_state` gave with the model; made here by default.
        call: ``(model, state, inputs, key) -> (outputs, state)`` for a model that is called otherwise, a whole
            batch at once among them; key None in evaluation.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from rfho.adapters.equinox import network
        >>> net = network(eqx.nn.MLP(2, 1, 8, 1, key=jax.random.key(0)))
        >>> outputs, _ = net.apply(net.params, net.carried, jnp.ones((5, 2)), None)
        >>> outputs.shape
        (5, 1)
    """
    carried = nn.State(model) if state is None else state
    has_state = bool(jax.tree.leaves(carried))
    model = nn.delete_init_state(model)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    call = _mapped(model) if call is None else call

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        model = nn.inference_mode(eqx.combine(params, static), value=key is None)
        outputs, after = call(model, carried if has_state else None, inputs, key)
        return outputs, after if has_state else carried

    return network_of(params, carried, apply, of="Equinox")


def _mapped(model: Any) -> Call:
    """Over the batch: a key for each example, one state for all of them."""
    takes_key = "key" in inspect.signature(model).parameters
    normalisers = [node for node in _nodes(model) if isinstance(node, nn.BatchNorm)]
    axis = normalisers[0].axis_name if normalisers else "batch"

    def one(model: Any, state: Any, x: Any, key: Any) -> tuple[Any, Any]:
        drawn = {"key": key} if takes_key else {}
        return (model(x, **drawn), None) if state is None else model(x, state, **drawn)

    def call(model: Any, state: Any, inputs: Any, key: Any) -> tuple[Any, Any]:
        examples = len(jax.tree.leaves(inputs)[0])
        keys = None if key is None else jax.random.split(key, examples)
        over = (None, None, 0, None if key is None else 0)
        mapped = eqx.filter_vmap(one, axis_name=axis, in_axes=over, out_axes=(0, None))
        return mapped(model, state, inputs, keys)

    return call


def _nodes(model: Any) -> list[Any]:
    is_normaliser = lambda node: isinstance(node, nn.BatchNorm)  # noqa: E731
    return jax.tree.leaves(model, is_leaf=is_normaliser)
