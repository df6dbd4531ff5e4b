"""Models of PyTorch, computed in JAX by torchax."""

import copy
from typing import Any

import jax

from rfho.adapters.network import Network, network_of
from rfho.errors import needed
from rfho.typing import PyTree


def network(model: Any) -> Network:
    """A `torch.nn.Module` as a `Network`: parameters and buffers by their names.

    Parameters without ``requires_grad`` are carried as they are.

    Running statistics of batch normalisation, which torchax leaves at their start, move here as in PyTorch. The
    model itself stays as it is; to write trained values back:
    ``model.load_state_dict({k: torch.tensor(numpy.asarray(v)) for k, v in {**params, **carried}.items()})``.

    Args:
        model: a `torch.nn.Module` for a batch of inputs.

    Raises:
        ValueError: a layer of instance normalisation tracks running statistics, which torchax leaves at their start.
    """
    torch = needed("torch", by="rfho.adapters.torch", extra="torch")
    torchax = needed("torchax", by="rfho.adapters.torch", extra="torch")
    model = copy.deepcopy(model)
    seen: dict[str, Any] = {}
    _let_statistics_move(torch, model)
    model.register_forward_hook(lambda module, inputs, outputs: seen.update(module.named_buffers()))
    trained = {name for name, leaf in model.named_parameters() if leaf.requires_grad}
    env = torchax.default_env()
    with env:
        values, _ = torchax.extract_jax(model)

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        model.train(key is not None)
        with env, env.override_property(prng=jax.random.key(0) if key is None else key):
            views = dict(torchax.interop.torch_view({**params, **carried}))
            outputs = torch.func.functional_call(model, views, torchax.interop.torch_view(inputs))
            after = {name: seen.get(name, views[name]) for name in carried}
            seen.clear()
        return torchax.interop.jax_view(outputs), torchax.interop.jax_view(after)

    params = {name: leaf for name, leaf in values.items() if name in trained}
    carried = {name: leaf for name, leaf in values.items() if name not in trained}
    return network_of(params, carried, apply, of="PyTorch")


def _let_statistics_move(torch: Any, model: Any) -> None:
    norms = torch.nn.modules
    for name, layer in model.named_modules():
        if isinstance(layer, norms.batchnorm._BatchNorm) and layer.track_running_stats:
            layer.register_forward_pre_hook(_move)
        if isinstance(layer, norms.instancenorm._InstanceNorm) and layer.track_running_stats:
            raise ValueError(
                f"{name} is a {type(layer).__name__} that tracks running statistics, which would never move in JAX: "
                "build it with track_running_stats=False"
            )


def _move(layer: Any, inputs: tuple[Any, ...]) -> None:
    """The running statistics after a batch: mean, and variance over n - 1."""
    if not layer.training:
        return
    (x,) = inputs
    axes = [0, *range(2, x.ndim)]
    rate = layer.momentum
    if rate is None:  # the mean over all batches
        rate = 1 / (layer.num_batches_tracked + 1)
    layer.running_mean = (1 - rate) * layer.running_mean + rate * x.mean(axes)
    layer.running_var = (1 - rate) * layer.running_var + rate * x.var(axes, unbiased=True)
