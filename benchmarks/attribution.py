"""``python -m benchmarks.attribution``: how well influence predicts what retraining without examples does.

MNIST (of the folder that RFHO_DATA names), plain momentum 0.9 at rate 0.01 on minibatches of 64. Three kinds of
truth: weights at 0 in the same order of batches, with 2 % and with half of the examples left out; and retraining
on the half in other orders. Halves come in pairs, one and the other. Without a flag it is 1000 examples, 16 queries
and some ten minutes of one core; ``--part`` is softmax by the published protocol (5000 examples, 50 epochs, 100
subsets, means of 5 retrainings) with 16 queries; ``--full`` is all of it. Words choose other models;
``transformer`` is one of characters at two rates, on the 3921 windows of tiny Shakespeare. ``--queries``,
``--subsets``, ``--runs`` and ``--retrain`` change how much is done, and ``--keep FOLDER`` does it in pieces: what
was found stays there.
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

import jax
import numpy as np

import rfho
from benchmarks.attribution_cases import MODELS, Case, Gentler, Scale, digits, text
from benchmarks.rivals import implicit, one_step, tracin
from rfho.attribution import influence
from rfho.attribution.examples import examples_of
from rfho.attribution.sweep import Asked
from rfho.attribution.validation import correlations, validated

REDUCED = Scale(examples=1000, queries=16, subsets=30, runs=8, retrain=4)
PART = Scale(examples=5000, queries=16, subsets=100, runs=64, retrain=5)
FULL = Scale(examples=5000, queries=500, subsets=100, runs=64, retrain=5)
WINDOWS = Scale(examples=3921, queries=8, subsets=30, runs=2, retrain=4)
_LIMITS = "ceiling", "linear_ceiling", "smoothness"
"""What a truth says of how well it can be predicted."""


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
    for case, scale in cases(given.models, given.scale, changed):
        report(case, scale, given.keep)


def cases(words: list[str], scale: Scale, changed: dict[str, int]) -> Iterator[tuple[Case, Scale]]:
    """The models whose names have one of the words; the networks of digits if there are none."""
    wanted = lambda name: any(word in name for word in words)  # noqa: E731
    epochs = 15 if scale is REDUCED else 50
    of_digits = MODELS[:1] if scale is PART else MODELS
    for model in MODELS if words else of_digits:
        if not words or wanted(model.name):
            asked = scale._replace(**changed)
            yield digits(model, asked, epochs), asked
    if wanted("transformer"):
        asked = WINDOWS._replace(**changed)
        for rate in (0.01, 0.003):
            yield text(asked, epochs=3, rate=rate), asked


def report(case: Case, scale: Scale, folder: Path | None) -> None:
    """The scores of every way to tell, against each kind of truth, and what each has cost."""
    problem = case.problem()
    checkpoints = trained(problem, case.epochs)
    said = case.sides.each.said(checkpoints[-1], case.sides.valid)
    print(f"\n{case.name}: {problem.horizon} steps, {said}", flush=True)
    kept = Kept(folder, f"{case.name} {scale.examples} {scale.queries}")
    truths = truths_of(problem, case, scale, kept)
    print(f"{'':<48}" + "".join(f"{truth:>18}" for truth in truths) + f"{'CPU s':>9}", flush=True)
    begin = time.process_time()
    for name, scores in told(case, scale, kept, checkpoints):
        row = "".join(f"{score(truth, scores):>18.2f}" for truth in truths.values())
        print(f"{name:<48}{row}{time.process_time() - begin:>9.0f}", flush=True)
        begin = time.process_time()
    for name in _LIMITS:
        row = "".join(f"{truth[name]:>18.2f}" for truth in truths.values())
        print(f"{name.replace('_', ' '):<48}{row}", flush=True)


def truths_of(
    problem: rfho.Problem, case: Case, scale: Scale, kept: Kept
) -> dict[str, dict[str, np.ndarray]]:
    """What came of leaving out examples."""
    examples = examples_of(problem.train)
    asked = Asked(problem.at(0), None, case.sides.each, examples, problem.horizon)

    def truth(fraction: float, retrain: int, key: int) -> dict[str, np.ndarray]:
        def find() -> dict[str, Any]:
            found = validated(
                asked,
                lambda masks: np.zeros((len(masks), scale.queries)),
                subsets=scale.subsets,
                fraction=fraction,
                retrain=retrain,
                antithetic=fraction == 0.5,
                key=key,
            )
            return {name: getattr(found, name) for name in ("left_out", "answers", *_LIMITS)}

        return kept(f"truth {scale.subsets} {fraction} {retrain}", find)

    return {
        "2 %, same order": truth(0.02, 0, key=2),
        "half, same order": truth(0.5, 0, key=3),
        "half, retrained": truth(0.5, scale.retrain, key=3),
    }


def told(case: Case, scale: Scale, kept: Kept, checkpoints: list[Any]) -> Iterator[tuple[str, Any]]:
    """Every way to tell, and what it says: averages after 1, 4, 16, … runs, and rivals."""
    sides = case.sides

    def averages(
        name: str, runs: int, how: Gentler = Gentler(), **options: Any
    ) -> Iterator[tuple[str, np.ndarray]]:
        counts = sorted({*(4**p for p in range(9) if 4**p < runs), runs})

        def find() -> dict[str, Any]:
            problem = case.problem(how.slower)
            found = influence(problem, queries=sides.each, runs=runs, weight=how.weight, **options)
            some = lambda k: found._replace(by_run=found.by_run[:k], drawn=found.drawn[:k])  # noqa: E731
            return {str(count): some(count).mean for count in counts}

        found = kept(f"{runs} {name}", find)
        yield from ((f"influence, {name}, runs: {k}", found[str(k)]) for k in counts)

    def by_curvature(checkpoints: list[Any]) -> np.ndarray:
        return implicit(sides, checkpoints[-1], damping=0.01, products=20)

    for how in (Gentler(), *case.gentler):
        yield from averages(f"at {how}", 1, how)
    yield from averages(f"other orders, {case.averaged}", min(scale.runs, 16), case.averaged, key=1)
    rivals = {
        "implicit, damping 0.01": lambda: by_curvature(checkpoints),
        "implicit, trained at rate / 8": lambda: by_curvature(
            trained(case.problem(slower=8), case.epochs)
        ),
        "TracIn, each epoch": lambda: tracin(sides, checkpoints),
        "last gradient": lambda: one_step(sides, checkpoints[-1]),
        "nearest neighbours": lambda: -case.similar(),
    }
    for name, find in rivals.items():
        yield name, kept(name, lambda find=find: {"scores": find()})["scores"]
    yield from averages("on halves", scale.runs, fraction=0.5, key=1)


def score(truth: dict[str, np.ndarray], scores: Any) -> float:
    """The linear datamodelling score of ``scores`` against what came of leaving out."""
    return float(
        np.mean(correlations(-(truth["left_out"] @ np.asarray(scores).T), truth["answers"]))
    )


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
