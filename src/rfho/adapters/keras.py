"""Models of Keras 3, computed by its JAX backend."""

from typing import Any

import jax
import jax.numpy as jnp

from rfho.adapters.network import Network, network_of
from rfho.errors import needed
from rfho.typing import PyTree


def network(model: Any) -> Network:
    """A built Keras model as a `Network`: parameters and carried arrays by the paths of its variables.

    Seeds of dropout and noise come from the key. Weights of the model itself stay as they are; to write trained
    values back: ``for v in model.variables: v.assign({**params, **carried}[v.path])``.

    Args:
        model: a built `keras.Model`, its backend JAX: set ``KERAS_BACKEND=jax`` before Keras is imported.

    Raises:
        TypeError: a variable is in float64, which Keras computes with in float32 outside of TensorFlow.
        ValueError: the backend is another one, the model is not built, two variables share a path, or, when it is
            traced, the model adds losses of its own.
    """
    keras = needed("keras", by="rfho.adapters.keras", extra="keras")
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"the backend of Keras is {keras.backend.backend()}, but rfho differentiates through JAX: set the "
            "environment variable KERAS_BACKEND=jax before Keras is imported"
        )
    if not model.built:
        raise ValueError(
            "the Keras model has no variables yet: call model.build(input_shape) first"
        )
    for variable in model.variables:
        if variable.dtype == "float64":
            raise TypeError(
                f"{variable.path} is in float64, but Keras computes with it in float32 (in activations and batch "
                "normalisation, whatever its dtype policy says): build the model in float32"
            )
    trained, moving = list(model.trainable_variables), list(model.non_trainable_variables)
    paths = [variable.path for variable in (*trained, *moving)]
    if len(set(paths)) < len(paths):
        raise ValueError(f"two variables of the Keras model share a path: {sorted(paths)}")

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        # By path: JAX sorts the names of a dictionary, Keras has an order of its own.
        outputs, after, losses = model.stateless_call(
            [params[variable.path] for variable in trained],
            [_seeded(carried[variable.path], key, i) for i, variable in enumerate(moving)],
            inputs,
            training=key is not None,
            return_losses=True,
        )
        if losses:
            raise ValueError(
                "the Keras model adds losses of its own (regularisers), which the loss that you give to rfho does "
                "not see: leave them out, and write them into that loss with hyperparameters for their strength"
            )
        return outputs, {v.path: leaf for v, leaf in zip(moving, after, strict=True)}

    return network_of(_by_path(trained), _by_path(moving), apply, of="Keras")


def _by_path(variables: list[Any]) -> dict[str, Any]:
    return {variable.path: variable.value for variable in variables}


def _seeded(leaf: Any, key: Any, i: int) -> Any:
    """The state of a seed generator; other arrays as they are."""
    if key is None or leaf.dtype != jnp.uint32:
        return leaf
    return jax.random.bits(jax.random.fold_in(key, i), leaf.shape, jnp.uint32)
