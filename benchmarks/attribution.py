"""``python -m benchmarks.attribution``: how well influence predicts what retraining without examples does.

MNIST (of the folder that RFHO_DATA names), plain momentum 0.9 at rate 0.01 on minibatches of 64. Three kinds of
truth: weights at 0 in the same order of batches, with 2 % and with half of the examples left out; and retraining
on the half in other orders. Without a flag it is 1000 examples, 16 queries and a few minutes of one core;
``--part`` is softmax by the published protocol (5000 examples, 50 epochs, means of 5 retrainings) with fewer queries
and subsets; ``--full`` is all of it.
`docs/explanation/influence.md` quotes what it prints.
"""

import sys

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.rivals import Sides, implicit, neighbours, one_step, tracin
from rfho.attribution import Validation, influence, weighted
from rfho.attribution.validation import correlations
from rfho.datasets import load_mnist

BATCH, RATE, DECAY = 64, 0.01, 0.9


class Scale(NamedTuple):
    """How much of it is done."""

    examples: int
    queries: int
    subsets: int
    halves: int
    retrain: int


class Model(NamedTuple):
    """Layers, what stands between them, for how many epochs they are trained, and the size of a pixel.

    Standardised pixels (1 / 0.3081) are what others train on; there the rate is at the edge of what is stable.
    """

    name: str
    sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    epochs: int
    pixel: float = 1 / 0.3081


class Losses(eqx.Module):
    """Cross-entropies of a network of dense layers."""

    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True)

    def __call__(self, params: Any, hyper: Any, batch: Any) -> jax.Array:
        logits = self.logits(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    def logits(self, params: Any, x: jax.Array) -> jax.Array:
        *layers, (weights, bias) = params
        for a, b in layers:
            x = self.activation(x @ a + b)
        return x @ weights + bias


REDUCED = Scale(examples=1000, queries=16, subsets=30, halves=8, retrain=4)
PART = Scale(examples=5000, queries=16, subsets=30, halves=4, retrain=5)
FULL = Scale(examples=5000, queries=500, subsets=100, halves=16, retrain=5)


def models(epochs: int) -> tuple[Model, ...]:
    sizes = (784, 128, 64, 10)
    return (
        Model("softmax", (784, 10), jax.nn.relu, epochs),
        Model("softmax, pixels in [0, 1]", (784, 10), jax.nn.relu, epochs, 1.0),
        Model("network, GELU, pixels in [0, 1]", sizes, jax.nn.gelu, epochs, 1.0),
        Model("network, GELU", sizes, jax.nn.gelu, epochs),
        Model("network, ReLU", sizes, jax.nn.relu, epochs),
    )


def main() -> None:
    """Prints a table for each model."""
    part = "--part" in sys.argv
    scale = FULL if "--full" in sys.argv else PART if part else REDUCED
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    for model in models(15 if scale is REDUCED else 50)[: 1 if part and not wanted else None]:
        if not wanted or any(word in model.name for word in wanted):
            report(model, scale)


def report(model: Model, scale: Scale) -> None:
    """The scores of every way to tell, against each kind of truth."""
    problem, each = problem_of(model, scale)
    sides = Sides(each, problem.train.data, problem.valid)
    checkpoints = trained(problem, model.epochs)
    accuracy = jnp.mean(
        jnp.argmax(each.logits(checkpoints[-1], sides.valid[0]), 1) == sides.valid[1]
    )
    print(
        f"\n{model.name}: {problem.horizon} steps, {float(accuracy):.0%} of queries right",
        flush=True,
    )
    begin = time.process_time()
    one = influence(problem, queries=each)
    spent = time.process_time() - begin
    averaged = influence(problem, queries=each, runs=scale.halves, fraction=0.5, key=1)
    print(f"one run {spent:.0f} CPU s with compiling, {one.memory / 1e6:.0f} MB", flush=True)
    subsets = scale.subsets
    truths = {
        "2 %, same order": one.validate(subsets=subsets, fraction=0.02, key=2),
        "half, same order": one.validate(subsets=subsets, key=3),
        "half, retrained": one.validate(subsets=subsets, retrain=scale.retrain, key=3),
    }
    told = {
        "influence, one run": one.mean,
        f"influence, {scale.halves} runs on halves": averaged.mean,
        "implicit, damping 0.01": implicit(sides, checkpoints[-1], damping=0.01, products=20),
        "TracIn, each epoch": tracin(sides, checkpoints),
        "last gradient": one_step(sides, checkpoints[-1]),
        "nearest neighbours": neighbours(sides),
    }
    print(f"{'':<32}" + "".join(f"{truth:>18}" for truth in truths))
    for name, scores in told.items():
        row = "".join(f"{score(truth, np.asarray(scores)):>18.2f}" for truth in truths.values())
        print(f"{name:<32}{row}")
    print(f"{'ceiling':<32}" + "".join(f"{t.ceiling:>18.2f}" for t in truths.values()), flush=True)


def score(truth: Validation, scores: np.ndarray) -> float:
    """The linear datamodelling score of ``scores`` against what came of leaving out."""
    return float(np.mean(correlations(-(truth.left_out @ scores.T), truth.answers)))


def problem_of(model: Model, scale: Scale) -> tuple[rfho.Problem, Losses]:
    """Training on the first examples; queries are losses on the first of the test set."""
    data, each = load_mnist(), Losses(model.activation)
    train, valid = (
        pixels(part, count, model.pixel) for part, count in zip(data, scale[:2], strict=True)
    )
    rng = np.random.default_rng(0)

    def layer(i: int, o: int) -> tuple[jax.Array, jax.Array]:
        draw = lambda *shape: jnp.asarray(rng.uniform(-1, 1, shape) / np.sqrt(i), jnp.float32)  # noqa: E731
        return draw(i, o), draw(o)

    init = [layer(i, o) for i, o in zip(model.sizes[:-1], model.sizes[1:], strict=True)]
    loss = weighted(each)
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(RATE, momentum=DECAY), init)
    horizon = model.epochs * (scale.examples // BATCH)
    return rfho.Problem(dynamics, loss, rfho.Stream(train, BATCH, key=0), valid, horizon), each


def pixels(part: Any, count: int, size: float) -> tuple[jax.Array, jax.Array]:
    """Centred images as rows, and their labels."""
    x = np.asarray(part.images[:count], np.float32).reshape(count, -1)
    return jnp.asarray((x - 0.1307) * size), jnp.asarray(part.labels[:count], jnp.int32)


def trained(problem: rfho.Problem, epochs: int) -> list[Any]:
    """The parameters after each epoch."""
    stretch = problem.horizon // epochs

    @jax.jit
    def epoch(state: Any, first: Any) -> Any:
        step = lambda t, state: problem.step(state, None, t)  # noqa: E731
        return jax.lax.fori_loop(first, first + stretch, step, state)

    state, found = problem.init(None), []
    for number in range(epochs):
        state = epoch(state, number * stretch)
        found.append(problem.dynamics.output(state))
    return found


if __name__ == "__main__":
    main()
