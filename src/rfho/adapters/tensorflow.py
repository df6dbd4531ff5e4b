"""Models of TensorFlow, translated by tf2jax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rfho.adapters.mode import mode_of
from rfho.adapters.network import Network, network_of
from rfho.errors import needed
from rfho.typing import PyTree


def network(
    model: Any, example: Any, *, call: Callable[[Any, Any, bool], Any] | None = None
) -> Network:
    """A `tf.Module` as a `Network`: parameters and carried arrays by the names of its variables.

    It is translated twice, for training and for evaluation, and computes in JAX.

    Args:
        model: a `tf.Module`.
        example: a batch of inputs, for shapes and dtypes; batches may have another length.
        call: ``(model, inputs, training) -> outputs``; by default the model is called with its inputs and told its
            mode by the argument ``train``, ``training`` or ``is_training`` that it has.

    Raises:
        TypeError: the model needs an argument that the default does not know.
        ValueError: it computes `tf.nn.moments`, as batch normalisation of Keras with the backend TensorFlow does:
            a gradient is stopped in there, and hypergradients would be wrong.
    """
    tf = needed("tensorflow", by="rfho.adapters.tensorflow", extra="tensorflow")
    tf2jax = needed("tf2jax", by="rfho.adapters.tensorflow", extra="tensorflow")
    spec = jax.tree.map(lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), example)
    mode = (lambda training: {}) if call else mode_of(model, inputs=1)
    default = lambda model, inputs, training: model(inputs, **mode(training))  # noqa: E731
    called = call or default
    functions: dict[bool, Any] = {}
    variables: dict[str, Any] = {}
    for training in (False, True):
        translated = tf.function(lambda inputs, training=training: called(model, inputs, training))
        _refuse_moments(translated.get_concrete_function(spec).graph.as_graph_def())
        functions[training], found = tf2jax.convert(translated, spec)
        variables |= found
    params = {name: jnp.asarray(leaf) for name, leaf in variables.items() if leaf.trainable}
    carried = {name: jnp.asarray(leaf) for name, leaf in variables.items() if not leaf.trainable}

    def apply(params: PyTree, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        outputs, after = functions[key is not None]({**params, **carried}, inputs, rng=key)
        return outputs, {name: after[name] for name in carried}

    return network_of(params, carried, apply, of="TensorFlow")


def _refuse_moments(graph: Any) -> None:
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    for node in nodes:
        if node.op == "StopGradient" and "moments" in node.name:
            raise ValueError(
                f"{node.name}: tf.nn.moments stops a gradient, so that second derivatives, and with them "
                "hypergradients, are wrong. Write mean = tf.reduce_mean(x, axes) and "
                "variance = tf.reduce_mean((x - mean) ** 2, axes); of a Keras model use the backend JAX and "
                "rfho.adapters.keras"
            )
