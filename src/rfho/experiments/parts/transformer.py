"""The transformer of the experiments: predicts the next character from those before it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from rfho.runs.settings import SettingsError


def check_heads(width: int, heads: int) -> None:
    """Refuses settings of which no transformer can be made.

    Raises:
        SettingsError: the heads do not divide the width.
    """
    if width % heads:
        raise SettingsError(f"width = {width}: heads = {heads} must divide it")


class Block(eqx.Module):
    """Attention to what came before, and a layer at each place; both add to what they are given."""

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, heads: int, *, key: Array) -> None:
        attention, up, down = jax.random.split(key, 3)
        self.norms = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=attention)
        self.up = eqx.nn.Linear(width, 4 * width, key=up)
        self.down = eqx.nn.Linear(4 * width, width, key=down)

    def __call__(self, x: Float[Array, "length width"]) -> Float[Array, "length width"]:
        seen = jax.vmap(self.norms[0])(x)
        past = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(seen, seen, seen, mask=past)
        return x + jax.vmap(lambda y: self.down(jax.nn.gelu(self.up(y))))(
            jax.vmap(self.norms[1])(x)
        )


class Transformer(eqx.Module):
    """Predicts every next character of a window."""

    letters: Array
    places: Array
    blocks: tuple[Block, ...]
    norm: eqx.nn.LayerNorm
    read: eqx.nn.Linear

    def __init__(
        self, letters: int, context: int, *, width: int, heads: int, layers: int, key: Array
    ) -> None:
        of_letters, of_places, read, *blocks = jax.random.split(key, 3 + layers)
        self.letters = 0.1 * jax.random.normal(of_letters, (letters, width))
        self.places = 0.1 * jax.random.normal(of_places, (context, width))
        self.blocks = tuple(Block(width, heads, key=key) for key in blocks)
        self.norm = eqx.nn.LayerNorm(width)
        self.read = eqx.nn.Linear(width, letters, key=read)

    def __call__(self, window: Int[Array, " length"]) -> Float[Array, "length letters"]:
        x = self.letters[window] + self.places
        for block in self.blocks:
            x = block(x)
        return jax.vmap(lambda y: self.read(self.norm(y)))(x)


class Losses(eqx.Module):
    """The mean cross-entropy of a character, document by document.

    Attributes:
        rest: of the transformer, what are no parameters.
        window: characters of a piece that is read at a time, the first of them only seen.
    """

    rest: Any
    window: int = eqx.field(static=True)

    def __call__(self, params: Any, documents: Int[Array, "n length"]) -> Float[Array, " n"]:
        windows = documents.reshape(-1, self.window)
        logits = jax.vmap(eqx.combine(params, self.rest))(windows[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
        return jnp.mean(losses.reshape(len(documents), -1), axis=1)
