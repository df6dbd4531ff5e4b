"""Models of Haiku."""

from collections.abc import Callable
from typing import Any

from rfho.adapters.network import Network, network_of
from rfho.typing import PyTree


def network(
    model: Any,
    params: PyTree,
    state: PyTree = None,
    *,
    arguments: Callable[[Any, bool], tuple[Any, ...]] = lambda inputs, training: (inputs, training),
) -> Network:
    """A transformed function of Haiku as a `Network`.

    Args:
        model: what ``haiku.transform_with_state`` or ``haiku.transform`` returned.
        params: what ``model.init`` returned; with a state, the first part of it.
        state: the second part of it.
        arguments: ``(inputs, training) -> arguments`` of the function; by default ``(inputs, training)``. For one
            that knows no modes pass ``lambda inputs, training: (inputs,)``.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from rfho.adapters.haiku import network
        >>> model = hk.transform(lambda x: hk.Linear(3)(x))
        >>> params = model.init(jax.random.key(0), jnp.ones((1, 2)))
        >>> net = network(model, params, arguments=lambda inputs, training: (inputs,))
        >>> net.apply(net.params, net.carried, jnp.ones((5, 2)), None)[0].shape
        (5, 3)
    """

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        passed = arguments(inputs, key is not None)
        if state is None:
            return model.apply(params, key, *passed), carried
        return model.apply(params, carried, key, *passed)

    return network_of(params, {} if state is None else state, apply, of="Haiku")
