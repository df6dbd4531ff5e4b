r"""The ground models of few-shot episodes: linear, trained from zero on what a network represents.

.. math:: w_t^i = w_{t-1}^i - \eta \nabla_w L(w_{t-1}^i, h_\lambda(S_i)), \qquad
          f(\lambda, \eta) = \frac{1}{n} \sum_i E(w_T^i, h_\lambda(Q_i))

The weights λ of the network reach an episode only through the representations of its images, so each
image is represented once, outside of the inner training. Reverse-HO gives the hypergradient by the
representations, and the chain rule the rest (arXiv 1806.04910):

.. math:: \nabla_\lambda f = \sum_i (\partial_\lambda h_\lambda(S_i, Q_i))^\top \nabla_{h_i} f.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, UInt8

import rfho
from rfho.experiments.hyper_representation.few_shot import Features, represent_episodes

Hyper = dict[str, Any]
"""``network`` and ``log_rate``; of `last_layer` ``support``, ``query`` and ``log_rate``."""

Episodes = UInt8[Array | np.ndarray, "episodes ways drawings height width"]
"""The first drawings of each class are its support, the others its queries."""


def last_layer(ways: int, horizon: int) -> rfho.Problem:
    """The ground models of any number of episodes side by side; what represents them is λ.

    ``hyper`` has the leaves ``support`` and ``query``, as `Features`, and ``log_rate``.
    """

    def loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        # Episodes share no parameters: the gradient of the sum is that of each.
        return jnp.sum(_losses(heads, hyper["support"]))

    def query_loss(heads: Array, hyper: Hyper, batch: None) -> Array:
        return jnp.mean(_losses(heads, hyper["query"]))

    def blank(hyper: Hyper) -> Array:
        episodes, _, width = hyper["support"].shape
        return jnp.zeros((episodes, width + 1, ways), hyper["support"].dtype)

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(jnp.exp(hyper["log_rate"])), blank)
    return rfho.Problem(dynamics, query_loss, None, None, horizon)


def estimate(
    problem: rfho.Problem, hyper: Hyper, episodes: Episodes, *, shots: int
) -> tuple[Array, Hyper]:
    """f on these episodes, and its hypergradient by the network and the logarithm of the rate."""
    features, pull_back = jax.vjp(
        lambda network: represent_episodes(network, episodes, shots), hyper["network"]
    )
    inner = features._asdict() | {"log_rate": hyper["log_rate"]}
    found, _ = rfho.hyper_gradients.ReverseHyperGradient().estimate(problem, inner, None)
    by_inner = found.hypergradient
    (by_network,) = pull_back(Features(by_inner["support"], by_inner["query"]))
    return found.value, {"network": by_network, "log_rate": by_inner["log_rate"]}


@eqx.filter_jit
def accuracies(
    problem: rfho.Problem, hyper: Hyper, episodes: Episodes, shots: int
) -> Float[Array, " episodes"]:
    """Of the trained ground model in each episode, in percent; ``hyper`` as in `estimate`."""
    features = represent_episodes(hyper["network"], episodes, shots)
    inner = features._asdict() | {"log_rate": hyper["log_rate"]}
    _, heads = rfho.hyper_gradients.ReverseHyperGradient().conclude(problem, inner, None)
    logits = _logits(heads, features.query)
    right = jnp.argmax(logits, axis=2) == _labels(*logits.shape[1:])
    return 100 * jnp.mean(right.astype(logits.dtype), axis=1)


@eqx.filter_jit
def nearest_accuracies(episodes: Episodes, shots: int) -> Float[Array, " episodes"]:
    """Of nearest neighbours on pixels in each episode, in percent."""
    count, ways = episodes.shape[:2]
    ink = episodes.reshape(*episodes.shape[:3], -1).astype(jnp.float32) / 255
    support = ink[:, :, :shots].reshape(count, ways * shots, -1)
    query = ink[:, :, shots:].reshape(count, -1, ink.shape[-1])
    # |q - s|^2 without |q|^2, which is the same for every s.
    far = jnp.sum(support**2, axis=2)[:, None] - 2 * query @ jnp.swapaxes(support, 1, 2)
    guess = jnp.argmin(far, axis=2) // shots
    right = guess == _labels(query.shape[1], ways)
    return 100 * jnp.mean(right.astype(ink.dtype), axis=1)


def _losses(heads: Array, rows: Float[Array, "episodes n width"]) -> Float[Array, " episodes"]:
    """The mean cross-entropy in each episode; rows are sorted by class."""
    logits = _logits(heads, rows)
    labels = jnp.broadcast_to(_labels(*logits.shape[1:]), logits.shape[:2])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels), axis=1)


def _logits(heads: Array, rows: Array) -> Float[Array, "episodes n ways"]:
    return rows @ heads[:, :-1] + heads[:, -1:]


def _labels(count: int, ways: int) -> Array:
    return jnp.repeat(jnp.arange(ways), count // ways)
