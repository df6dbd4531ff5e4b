"""Where training starts: arrays, models, or a function of λ that makes them.

Whatever is trained is an array of floating-point numbers. What is not is split off (the functions and flags of
an Equinox model), carried (`Variables`), or refused by its path in the pytree.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rfho._programs import trees as tree
from rfho.dynamics.model import SplitModel
from rfho.dynamics.variables import Variables
from rfho.typing import Hyper, Params

_BY_AN_ADAPTER = (
    "init=net.variables and has_aux=True, and call net.apply(*variables, x, key) in the loss"
)

_HOLD_THEIR_ARRAYS = {
    "flax.nnx": f"take net = rfho.adapters.nnx.network(model), pass {_BY_AN_ADAPTER}",
    "flax.linen": (
        f"take net = rfho.adapters.linen.network(model, model.init(key, x)), pass {_BY_AN_ADAPTER}"
    ),
    "haiku": f"take net = rfho.adapters.haiku.network(model, model.init(key, x)), pass {_BY_AN_ADAPTER}",
    "keras": (
        "pass init=[v.value for v in model.trainable_variables], and call "
        "model.stateless_call(w, [v.value for v in model.non_trainable_variables], x) in the loss"
    ),
    "torch": (
        "pass the parameters as JAX arrays, params, _ = torchax.extract_jax(model), and call "
        "torch.func.functional_call in the loss, within torchax's environment"
    ),
    "tensorflow": "pass the variables' values as JAX arrays, and convert the call with tf2jax",
}
"""For packages whose models are objects rather than pytrees of arrays: what to write instead."""

_MODELS = ("Module", "Layer", "Transformed", "TransformedWithState")
"""What such packages call their models."""


class Given(eqx.Module):
    """Initial parameters that do not depend on λ, as a function of λ."""

    params: Params

    def __call__(self, hyper: Hyper) -> Params:
        """The parameters."""
        return self.params


def as_init(init: Params | Callable[[Hyper], Params]) -> Callable[[Hyper], Params]:
    """``init`` as a function of λ. A model that can be called is still a pytree of parameters.

    Raises:
        TypeError: it is a model that holds its arrays inside, or a leaf cannot be trained.
    """
    _refuse_foreign(init)
    if callable(init) and not _is_model(init):
        return init
    return Given(trained(init))


def trained(params: Params) -> Params:
    """``params`` of floating-point arrays, models split; of `Variables` the trained part.

    Raises:
        TypeError: a leaf cannot be trained; the message names its path.
    """
    if isinstance(params, Variables):
        carried = jax.tree.map_with_path(_carried, params.carried)
        return Variables(trained(params.params), carried)
    _refuse_foreign(params)
    return jax.tree.map_with_path(_trained, params, is_leaf=_is_model)


def _is_model(node: Any) -> bool:
    if not isinstance(node, eqx.Module) or isinstance(node, eqx.Partial):
        return False
    return any(map(eqx.is_array, jax.tree.leaves(node)))


def _trained(path: tuple[Any, ...], node: Any) -> Any:
    where = tree.path_of(path, "init")
    if not _is_model(node):
        node = _array(node, where)
        _refuse_integers(node, where)
        return node
    node = jax.tree.map(lambda leaf: jnp.asarray(leaf) if _is_numpy(leaf) else leaf, node)
    arrays, rest = eqx.partition(node, eqx.is_array)
    for inner, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        _refuse_integers(leaf, tree.path_of(inner, where))
    return SplitModel(node) if jax.tree.leaves(rest) else node


def _carried(path: tuple[Any, ...], leaf: Any) -> Array:
    return _array(leaf, tree.path_of(path, "init.carried"))


def _array(leaf: Any, where: str) -> Array:
    if not tree.is_number(leaf):
        raise TypeError(
            f"{where} is a {type(leaf).__name__}, but training starts from arrays: keep functions and settings "
            "out of init, or put them into an Equinox model, which is split"
        )
    return jnp.asarray(leaf)


def _refuse_integers(leaf: Array, where: str) -> None:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"{where} has dtype {leaf.dtype}, but what is trained must be of floating point: write 1.0 rather "
            "than 1, or carry it beside the parameters, rfho.Variables(params, carried)"
        )


def _is_numpy(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | np.generic)


def _refuse_foreign(model: Any) -> None:
    """By the names of its classes, so that no framework is imported."""
    for kind in type(model).__mro__:
        for package, instead in _HOLD_THEIR_ARRAYS.items():
            if kind.__name__ in _MODELS and f"{kind.__module__}.".startswith(f"{package}."):
                raise TypeError(
                    f"init is a {type(model).__name__}, a model of {package}, which is no pytree of arrays: "
                    + instead
                )
