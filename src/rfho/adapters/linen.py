"""Models of Flax Linen."""

from collections.abc import Callable
from typing import Any

from rfho.adapters.mode import mode_of
from rfho.adapters.network import Network, network_of
from rfho.typing import PyTree


def network(
    model: Any, variables: Any, *, call: Callable[[Any, Any, bool], Any] | None = None
) -> Network:
    """A Linen module and its variables as a `Network`.

    The collection ``params`` is trained, all others are carried, and every random stream draws from the key.
    Statistics get the precision of the parameters.

    Args:
        model: a `flax.linen.Module`.
        variables: what ``model.init`` returned.
        call: ``(module, inputs, training) -> outputs``; by default the module is called with its inputs and told
            its mode by the argument ``train``, ``training`` or ``deterministic`` that it has.

    Raises:
        TypeError: the module needs an argument that the default does not know.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from rfho.adapters.linen import network
        >>> model = nn.Dense(3)
        >>> net = network(model, model.init(jax.random.key(0), jnp.ones((1, 2))))
        >>> sorted(net.params)
        ['bias', 'kernel']
    """
    mode = (lambda training: {}) if call else mode_of(type(model).__call__, inputs=2)
    default = lambda module, inputs, training: module(inputs, **mode(training))  # noqa: E731
    method = call or default
    params, carried = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        whole = {"params": params, **carried}
        if key is None:
            return model.apply(whole, inputs, False, method=method), carried
        streams = {"params": key, "dropout": key}  # all others fall back to the first one
        return model.apply(whole, inputs, True, method=method, mutable=list(carried), rngs=streams)

    return network_of(params, carried, apply, of="Linen")
