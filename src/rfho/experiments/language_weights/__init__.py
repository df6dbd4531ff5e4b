r"""How much of each source of text a language model should learn from.

A transformer predicts the next character. Its training text comes from several sources, and nobody
says which of them are spoilt. Each source s has a weight, and the weights lie on the simplex,

.. math:: L(w, \lambda) = \sum_s \lambda_s L_s(w), \qquad \lambda_s \ge 0,\ \sum_s \lambda_s = 1,

where :math:`L_s` is the mean cross-entropy on text of the source. They minimise the loss of
:math:`w_T` on a little clean text that is not trained on: data hyper-cleaning (arXiv 1703.01785,
section 5.1) with one weight for a source instead of an example. The projection onto the simplex gives
weights that are exactly zero.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int
from rich.console import Console

import rfho
from rfho.experiments.language_weights.mixed_text import SOURCES, TEXTS, MixedText, load_mixed_text
from rfho.experiments.parts.transformer import Losses, Transformer, check_heads
from rfho.runs.experiment import Experiment, until_interrupted
from rfho.runs.outer_loops import OuterLoop
from rfho.runs.pictures import curves
from rfho.runs.run_folder import RunFolder
from rfho.runs.settings import above, at_least, setting
from rfho.runs.study import Record, Study, add_tables, traced

Hyper = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """The text, the transformer, and how the weights are learned."""

    data: str = setting("descriptions", "text: descriptions or tiny-shakespeare", TEXTS)
    context: int = setting(24, "characters that the model sees at most", at_least(2))
    valid: int = setting(100, "clean windows that judge the weights; as many test", at_least(2))
    width: int = setting(32, "of the transformer", at_least(4))
    heads: int = setting(2, "of the attention; must divide the width", at_least(1))
    layers: int = setting(1, "of the transformer", at_least(1))
    batch: int = setting(8, "windows of each source in a batch", at_least(1))
    rate: float = setting(0.003, "of Adam in the inner steps", above(0))
    horizon: int = setting(100, "inner steps T", at_least(1))
    steps: int = setting(12, "outer steps", at_least(1))
    outer_rate: float = setting(0.1, "rate of Adam on the weights", above(0))
    final: int = setting(300, "steps of the final models", at_least(1))
    repeats: int = setting(2, "final models for each mixture", at_least(2))
    seed: int = setting(0, "of text, network and batches", at_least(0))


def training(
    text: MixedText, settings: LanguageSettings, *, repeat: int = 0, final: bool = False
) -> rfho.Problem:
    """The transformer on all sources; ``repeat`` changes its first weights and the batches.

    Args:
        text: of all sources.
        settings: of the run.
        repeat: 0, 1, …
        final: trained for ``settings.final`` steps and judged by the test text.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), repeat)
    model = Transformer(
        len(text.alphabet),
        settings.context,
        width=settings.width,
        heads=settings.heads,
        layers=settings.layers,
        key=key,
    )
    init, rest = eqx.partition(model, eqx.is_array)
    losses = Losses(rest, settings.context + 1)

    def loss(params: Any, hyper: Hyper, batch: Int[Array, "size sources length"]) -> Array:
        by_window = losses(params, batch.reshape(-1, batch.shape[2]))
        return jnp.mean(by_window.reshape(batch.shape[:2]) @ hyper["weights"])

    def objective(params: Any, hyper: Hyper, windows: Array) -> Array:
        return jnp.mean(losses(params, windows))

    return rfho.Problem(
        rfho.Descent(loss, lambda hyper: rfho.optim.adam(settings.rate, eps=1e-4), init),
        objective,
        rfho.Stream(text.train, min(settings.batch, len(text.train)), key),
        text.test if final else text.valid,
        settings.final if final else settings.horizon,
    )


def run(settings: LanguageSettings, folder: RunFolder, console: Console) -> None:
    """Learns the weights, then trains longer on the learned mixture and on two others."""
    check_heads(settings.width, settings.heads)
    text = load_mixed_text(
        settings.data, settings.context + 1, held_out=settings.valid, seed=settings.seed
    )
    weights = [np.full(len(SOURCES), 1 / len(SOURCES), np.float32)]
    with until_interrupted(folder, console):
        for report in rfho.iterate(
            training(text, settings),
            {"weights": jnp.asarray(weights[0])},
            optim=optax.adam(settings.outer_rate),
            domain={"weights": rfho.Simplex()},
            steps=settings.steps,
            run=OuterLoop(folder, "weights"),
        ):
            weights.append(report.hyper["weights"])
            named = dict(zip(SOURCES, weights[-1].tolist(), strict=True))
            folder.record({"step": report.step, "validation loss": report.value} | named)
            shown = ", ".join(f"{name} {weight:.3f}" for name, weight in named.items())
            console.print(f"step {report.step}: loss {report.value:.3f}; {shown}")
    add_pictures(folder, np.array(weights))
    mixtures = {
        "learned weights": weights[-1],
        "equal weights": weights[0],
        "the clean source alone": np.eye(len(SOURCES), dtype=np.float32)[0],
    }
    study = compare(text, mixtures, settings)
    records = study.carry_out(folder, console)
    if records:
        note = (
            f"{settings.final} training steps of {settings.batch} windows from each source; mean ± standard "
            f"deviation over {settings.repeats} networks and orders of batches. Weights: {len(weights) - 1} outer "
            f"steps with T = {settings.horizon}. A guess without any knowledge costs "
            f"{math.log2(len(text.alphabet)):.2f} bits."
        )
        table = study.table(f"Learning from mixed text: {settings.data}", records, note)
        add_tables(folder, console, {"loss": table})


def compare(
    text: MixedText, mixtures: Mapping[str, np.ndarray], settings: LanguageSettings
) -> Study[int]:
    """Models trained from scratch on each mixture, judged by the test text."""
    hyper = {"weights": jnp.asarray(np.stack(list(mixtures.values())))}
    # The repeats are one problem with other numbers in it: that of the first is run for all.
    static = eqx.filter(training(text, settings, final=True), eqx.is_array, inverse=True)
    headings = [f"weight: {source}" for source in SOURCES]

    def on_repeat(repeat: int) -> Iterator[Record]:
        problem = eqx.filter(training(text, settings, repeat=repeat, final=True), eqx.is_array)
        losses = np.asarray(_test_losses(eqx.combine(problem, static), hyper)) / math.log(2)
        for (name, mixture), bits in zip(mixtures.items(), losses.tolist(), strict=True):
            weights = dict(zip(headings, mixture.tolist(), strict=True))
            yield {"training text": name, "test loss, bits per character": bits} | weights

    columns = {"training text": None, "test loss, bits per character": 3} | dict.fromkeys(
        headings, 3
    )
    same = dict.fromkeys(headings, lambda weights: float(weights[0]))
    return Study({}, range(settings.repeats), on_repeat, columns, same, by="training text")


@eqx.filter_jit
def _test_losses(problem: rfho.Problem, hyper: Hyper) -> Float[Array, " mixtures"]:
    return jax.vmap(lambda one: rfho.train(problem, one).value)(hyper)


def add_pictures(folder: RunFolder, weights: np.ndarray) -> None:
    """The weights by outer step, and what they minimise."""
    series = {source: weights[:, number] for number, source in enumerate(SOURCES)}
    drawn = curves(series, x_label="outer step", y_label="weight of the source")
    folder.add_picture("weights", drawn, "The weight of each source by outer step.")
    losses = traced(folder.history(), "validation loss")
    if losses.size:
        drawn = curves(
            {"validation": losses / math.log(2)},
            x_label="outer step",
            y_label="validation loss after T steps,\nbits per character",
        )
        folder.add_picture("loss", drawn, "The loss that the weights minimise, by outer step.")


LANGUAGE_WEIGHTS = Experiment(
    name="language-weights",
    title="Which text to learn from",
    summary=(
        "Learns how much of each source of text, clean and spoilt, a transformer is to be trained on, "
        "from a little clean text and through all of training."
    ),
    quick=LanguageSettings(),
    full=LanguageSettings(data="tiny-shakespeare", horizon=150, steps=10, final=600),
    run=run,
)
