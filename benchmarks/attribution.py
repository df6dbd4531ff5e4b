"""``python -m benchmarks.attribution``: how well influence predicts what retraining without examples does.

MNIST (of the folder that RFHO_DATA names), plain momentum 0.9 at rate 0.01 on minibatches of 64. Three kinds of
truth: weights at 0 in the same order of batches, with 2 % and with half of the examples left out; and retraining
on the half in other orders. Without a flag it is 1000 examples, 16 queries and some ten minutes of one core;
``--part`` is softmax by the published protocol (5000 examples, 50 epochs, 100 subsets, means of 5 retrainings) with
16 queries; ``--full`` is all of it. Words choose other models. ``--queries``, ``--subsets``, ``--runs`` and
``--retrain`` change how much is done, and ``--keep FOLDER`` does it in pieces: what was found stays there.
`docs/explanation/influence.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import argparse
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.rivals import Sides, implicit, neighbours, one_step, tracin
from rfho.attribution import influence, weighted
from rfho.attribution.examples import examples_of
from rfho.attribution.sweep import Asked
from rfho.attribution.validation import correlations, validated
from rfho.datasets import load_mnist

BATCH, RATE, DECAY = 64, 0.01, 0.9
GENTLER = (1 / 2, 1 / 4, 1 / 8, 1 / 16)


class Scale(NamedTuple):
    """How much of it is done: ``runs`` are averaged on halves, at most 16 at weight 1/8."""

    examples: int
    queries: int
    subsets: int
    runs: int
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


REDUCED = Scale(examples=1000, queries=16, subsets=30, runs=8, retrain=4)
PART = Scale(examples=5000, queries=16, subsets=100, runs=64, retrain=5)
FULL = Scale(examples=5000, queries=500, subsets=100, runs=64, retrain=5)


def models(epochs: int) -> tuple[Model, ...]:
    sizes = (784, 128, 64, 10)
    return (
        Model("softmax", (784, 10), jax.nn.relu, epochs),
        Model("softmax, pixels in [0, 1]", (784, 10), jax.nn.relu, epochs, 1.0),
        Model("network, GELU, pixels in [0, 1]", sizes, jax.nn.gelu, epochs, 1.0),
        Model("network, GELU", sizes, jax.nn.gelu, epochs),
        Model("network, ReLU", sizes, jax.nn.relu, epochs),
    )


class Kept(NamedTuple):
    """Arrays that were found, in a folder if there is one, so that a later call goes on from there."""

    folder: Path | None
    prefix: str

    def __call__(self, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
        """What was kept as ``name``, or what ``find`` finds now."""
        if self.folder is None:
            return find()
        file = self.folder / (re.sub(r"\W+", "-", f"{self.prefix} {name}") + ".npz")
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(file, **find())
        return dict(np.load(file))


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution", description=__doc__)
    parser.add_argument("models", nargs="*", help="words of the names of models")
    parser.add_argument("--part", action="store_const", dest="scale", const=PART, default=REDUCED)
    parser.add_argument("--full", action="store_const", dest="scale", const=FULL)
    for name in ("queries", "subsets", "runs", "retrain"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--keep", type=Path, help="a folder")
    given = parser.parse_args()
    changed = {n: getattr(given, n) for n in Scale._fields if getattr(given, n, None)}
    epochs = 15 if given.scale is REDUCED else 50
    only = 1 if given.scale is PART and not given.models else None
    for model in models(epochs)[:only]:
        if not given.models or any(word in model.name for word in given.models):
            report(model, given.scale._replace(**changed), given.keep)


def report(model: Model, scale: Scale, folder: Path | None) -> None:
    """The scores of every way to tell, against each kind of truth, and what each has cost."""
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
    kept = Kept(folder, f"{model.name} {scale.examples} {scale.queries}")
    truths = truths_of(problem, each, scale, kept)
    print(f"{'':<48}" + "".join(f"{truth:>18}" for truth in truths) + f"{'CPU s':>9}", flush=True)
    begin = time.process_time()
    for name, scores in told(model, scale, kept, sides, checkpoints):
        row = "".join(f"{score(truth, scores):>18.2f}" for truth in truths.values())
        print(f"{name:<48}{row}{time.process_time() - begin:>9.0f}", flush=True)
        begin = time.process_time()
    ceilings = "".join(f"{truth['ceiling']:>18.2f}" for truth in truths.values())
    print(f"{'ceiling':<48}{ceilings}", flush=True)


def truths_of(
    problem: rfho.Problem, each: Losses, scale: Scale, kept: Kept
) -> dict[str, dict[str, np.ndarray]]:
    """What came of leaving out examples."""
    examples = examples_of(problem.train)
    asked = Asked(problem.at(0), None, each, examples, problem.horizon)

    def truth(fraction: float, retrain: int, key: int) -> dict[str, np.ndarray]:
        def find() -> dict[str, Any]:
            found = validated(
                asked,
                lambda masks: np.zeros((len(masks), scale.queries)),
                subsets=scale.subsets,
                fraction=fraction,
                retrain=retrain,
                key=key,
            )
            return {name: getattr(found, name) for name in ("left_out", "answers", "ceiling")}

        return kept(f"truth {scale.subsets} {fraction} {retrain}", find)

    return {
        "2 %, same order": truth(0.02, 0, key=2),
        "half, same order": truth(0.5, 0, key=3),
        "half, retrained": truth(0.5, scale.retrain, key=3),
    }


def told(
    model: Model, scale: Scale, kept: Kept, sides: Sides, checkpoints: list[Any]
) -> Iterator[tuple[str, Any]]:
    """Every way to tell, and what it says: averages after 1, 4, 16, … runs, and rivals."""
    problem, _ = problem_of(model, scale)

    def averages(name: str, runs: int, **options: Any) -> Iterator[tuple[str, np.ndarray]]:
        counts = sorted({*(4**p for p in range(9) if 4**p < runs), runs})

        def find() -> dict[str, Any]:
            found = influence(problem, queries=sides.each, runs=runs, **options)
            some = lambda k: found._replace(by_run=found.by_run[:k], drawn=found.drawn[:k])  # noqa: E731
            return {str(count): some(count).mean for count in counts}

        found = kept(f"{runs} {name}", find)
        yield from ((f"influence, {name}, runs: {k}", found[str(k)]) for k in counts)

    def by_curvature(checkpoints: list[Any]) -> np.ndarray:
        return implicit(sides, checkpoints[-1], damping=0.01, products=20)

    for weight in (1.0, *GENTLER):
        yield from averages(f"at weight {weight:g}", 1, weight=weight)
    yield from averages("other orders, weight 0.125", min(scale.runs, 16), weight=1 / 8, key=1)
    gentle = trained(problem_of(model, scale, rate=RATE / 8)[0], model.epochs)
    rivals = {
        "implicit, damping 0.01": lambda: by_curvature(checkpoints),
        "implicit, trained at rate / 8": lambda: by_curvature(gentle),
        "TracIn, each epoch": lambda: tracin(sides, checkpoints),
        "last gradient": lambda: one_step(sides, checkpoints[-1]),
        "nearest neighbours": lambda: neighbours(sides),
    }
    for name, find in rivals.items():
        yield name, kept(name, lambda find=find: {"scores": find()})["scores"]
    yield from averages("on halves", scale.runs, fraction=0.5, key=1)


def score(truth: dict[str, np.ndarray], scores: Any) -> float:
    """The linear datamodelling score of ``scores`` against what came of leaving out."""
    return float(
        np.mean(correlations(-(truth["left_out"] @ np.asarray(scores).T), truth["answers"]))
    )


def problem_of(model: Model, scale: Scale, rate: float = RATE) -> tuple[rfho.Problem, Losses]:
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
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(rate, momentum=DECAY), init)
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
