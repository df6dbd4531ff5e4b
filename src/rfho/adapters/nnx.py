"""Models of Flax NNX."""

from collections.abc import Callable
from typing import Any

import jax

from rfho.adapters.network import Network, network_of
from rfho.errors import needed
from rfho.typing import PyTree


def network(
    model: Any, *, call: Callable[[Any, Any], Any] = lambda model, inputs: model(inputs)
) -> Network:
    """An NNX module as a `Network`; ``nnx.update(model, *variables)`` writes trained values back.

    Its `nnx.Param` are trained, all other variables are carried, and every random stream draws from the key.
    `nnx.BatchNorm` stops the gradient of its running statistics, which gives hypergradients of the wrong sign; of
    the copy that this network computes with it does not.

    Args:
        model: an `nnx.Module`; it stays as it is.
        call: ``(model, inputs) -> outputs``.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from rfho.adapters.nnx import network
        >>> net = network(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> net.apply(net.params, net.carried, jnp.ones((5, 2)), None)[0].shape
        (5, 3)
    """
    nnx = needed("flax.nnx", by="rfho.adapters.nnx", extra="flax")
    model = nnx.clone(model)
    _let_statistics_carry_derivatives(nnx, model)
    graph, params, streams, carried = nnx.split(model, nnx.Param, nnx.RngState, ...)

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        copy = nnx.merge(graph, params, streams, carried, copy=True)
        if key is None:
            copy.eval()
            return call(copy, inputs), carried
        copy.train()
        for i, stream in enumerate(_all(nnx, copy, nnx.RngStream)):
            stream.key[...] = jax.random.fold_in(key, i)
        outputs = call(copy, inputs)
        return outputs, nnx.to_pure_dict(nnx.split(copy, nnx.Param, nnx.RngState, ...)[3])

    return network_of(nnx.to_pure_dict(params), nnx.to_pure_dict(carried), apply, of="NNX")


def _let_statistics_carry_derivatives(nnx: Any, model: Any) -> None:
    class Statistic(nnx.BatchStat):
        """One that says that it cannot be updated in place: those that can have their gradient stopped."""

        _can_update = False

    for layer in _all(nnx, model, nnx.BatchNorm):
        layer.mean, layer.var = Statistic(layer.mean[...]), Statistic(layer.var[...])


def _all(nnx: Any, model: Any, kind: type) -> list[Any]:
    return [node for _, node in nnx.iter_graph(model) if isinstance(node, kind)]
