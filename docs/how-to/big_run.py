"""A transformer whose documents are weighted, in sizes from one that trains on a laptop to 70 B parameters.

rfho plan big_run.py:one_billion --mesh devices=64
rfho tune big_run.py:small
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

import rfho


class Size(NamedTuple):
    """How large model and batches are."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int  # tokens of a sequence
    batch: int  # sequences of a step


SMALL = Size(layers=2, width=32, heads=2, vocabulary=64, length=16, batch=8)
ONE_BILLION = Size(layers=18, width=2048, heads=16, vocabulary=32768, length=2048, batch=512)
SEVENTY_BILLION = Size(layers=86, width=8192, heads=64, vocabulary=32768, length=4096, batch=1024)
DOCUMENTS = 100_000


def init(size, hyper):
    """Parameters, those of all layers stacked; called when training starts, and never by a plan."""
    layers, width = size.layers, size.width
    shapes = {
        "tokens": (size.vocabulary, width),
        "places": (size.length, width),
        "layers": {
            "attend": (layers, width, 3 * width),
            "join": (layers, width, width),
            "widen": (layers, width, 4 * width),
            "narrow": (layers, 4 * width, width),
        },
    }
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        jax.random.normal(k, shape) * width**-0.5 for k, shape in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def whole(w):
    """Parameters on every device, where a mesh is set: they are sent, and not what is made of examples."""
    return jax.tree.map(lambda leaf: _laid(leaf, PartitionSpec()), w)


def by_examples(x):
    """Examples each on its device."""
    return _laid(x, PartitionSpec(jax.sharding.get_abstract_mesh().axis_names))


def _laid(leaf, spec):
    here = not jax.sharding.get_abstract_mesh().empty
    return jax.lax.with_sharding_constraint(leaf, spec) if here else leaf


def normalised(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def block(size, x, w):
    """One layer: attention, then two products."""
    apart = lambda y: jnp.moveaxis(y.reshape(*y.shape[:-1], size.heads, -1), -2, -3)  # noqa: E731
    q, k, v = map(apart, jnp.split(normalised(x) @ w["attend"], 3, axis=-1))
    seen = jnp.moveaxis(rfho.layers.attention(q, k, v, causal=True), -3, -2)
    x = x + seen.reshape(x.shape) @ w["join"]
    return x + jax.nn.gelu(normalised(x) @ w["widen"]) @ w["narrow"]


def cross_entropies(size, w, tokens):
    """Of each sequence; what a layer computes is made again on the way back."""
    layer = jax.checkpoint(lambda x, w: (by_examples(block(size, x, whole(w))), None))
    table = whole(w["tokens"])
    x, _ = jax.lax.scan(layer, by_examples(table[tokens] + w["places"]), w["layers"])
    logits = by_examples(normalised(x)[:, :-1] @ table.T)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean(axis=-1)


def problem(size, horizon):
    """Training on documents by their weights, judged by sequences held out."""

    def sequences(seed):
        # Your loader's place, a rfho.HostStream: a plan reads shapes alone.
        tokens = lambda t: jax.random.fold_in(jax.random.key(seed), t)  # noqa: E731
        shape = size.batch, size.length
        return lambda t: (
            jax.random.randint(tokens(t), shape, 0, size.vocabulary),
            jax.random.randint(tokens(t), (size.batch,), 0, DOCUMENTS),
        )

    def loss(w, hyper, batch):
        tokens, documents = batch
        return jnp.mean(hyper["weights"][documents] * cross_entropies(size, w, tokens))

    def objective(w, hyper, batch):
        return jnp.mean(cross_entropies(size, w, batch[0]))

    optim = lambda hyper: rfho.optim.adamw(hyper["rate"], weight_decay=hyper["decay"])  # noqa: E731
    dynamics = rfho.Descent(loss, optim, lambda hyper: init(size, hyper))
    return rfho.Problem(dynamics, objective, sequences(0), sequences(1), horizon)


hyper = {"rate": 3e-4, "decay": 0.1, "weights": jnp.ones(DOCUMENTS)}


def small():
    return problem(SMALL, horizon=20)


def one_billion():
    return problem(ONE_BILLION, horizon=10_000)


def seventy_billion():
    return problem(SEVENTY_BILLION, horizon=10_000)
