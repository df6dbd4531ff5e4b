"""One seed: the documents, what chooses among them, and models trained anew on what was chosen."""

import functools
import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

import rfho
from rfho.experiments.data_selection.choices import (
    Counts,
    Rule,
    lowest,
    moved,
    order,
    unlikeness,
)
from rfho.experiments.data_selection.documents import KINDS, load_documents
from rfho.experiments.data_selection.learning import (
    blank_weights,
    costs,
    derivative,
    losses_of,
    training,
    went_on,
    with_functions_of,
)
from rfho.experiments.data_selection.settings import LOOKS, SelectionSettings
from rfho.experiments.parts.transformer import Losses, Transformer


class Trials:
    """The trials on one seed.

    Args:
        settings: of the run.
        seed: of this trial.
        compiled: problems whose functions are used again, by shape; filled here, shared by all seeds.
    """

    def __init__(
        self, settings: SelectionSettings, seed: int, compiled: dict[tuple[int, int], rfho.Problem]
    ) -> None:
        self.settings, self.seed, self._compiled = settings, seed, compiled
        self.documents = load_documents(
            settings.data,
            settings.pieces * (settings.context + 1),
            count=settings.documents,
            held_out=settings.held_out,
            spoilt=settings.spoilt,
            seed=seed,
        )
        windows = (settings.horizon, *settings.horizons)
        firsts = [self._problem(self._everything, settings.horizon, k, run=0) for k in windows]
        self.costs = costs(firsts[0])
        dearest = max(self.costs.of_derivative(first) for first in firsts)
        self.budget = settings.rounds * settings.starts * dearest + settings.final * self.costs.step
        self.reference = self._reference_losses()

    def groups(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Documents by what they are; hard is the third of the clean ones that the reference model finds worst."""
        kinds = self.documents.kinds
        clean = kinds == 0
        hard = clean & (self.reference > np.quantile(self.reference[clean], 2 / 3))
        spoilt = {name: kinds == kind for kind, name in enumerate(KINDS) if kind}
        return {"easy": clean & ~hard, "hard": hard, **spoilt}

    def simple(self) -> dict[str, tuple[Counts, float]]:
        """What is chosen without a derivative through training, and the operations that it takes.

        The filters are told how many documents are clean.
        """
        clean = self.documents.kinds == 0
        kept = int(clean.sum())
        settings, spent = self.settings, self.costs
        reading = settings.horizon * spent.step + settings.documents * spent.score
        unlike = unlikeness(self.documents.train, self.documents.valid)
        return {
            "uniform": (self._everything, 0.0),
            "perplexity filter": (lowest(self.reference, kept), reading),
            "similarity": (lowest(unlike, kept), 0.0),
            "clean alone": (clean.astype(np.int64), 0.0),
        }

    def descent(
        self, window: int, rule: Rule, rounds: int
    ) -> Iterator[tuple[Counts, Float[np.ndarray, "R n"], float]]:
        """Round by round: counts, the derivatives that they follow, and the operations so far."""
        counts, spent = self._everything, 0.0
        for number in range(rounds):
            found = []
            for run in range(number * rule.starts, (number + 1) * rule.starts):
                problem = self._problem(counts, self.settings.horizon, window, run=run)
                found.append(derivative(problem)[: self.settings.documents])
                spent += self.costs.of_derivative(problem)
            counts = moved(counts, np.stack(found), rule)
            yield counts, np.stack(found), spent

    def trained(self, counts: Counts, spent: float) -> dict[str, np.ndarray]:
        """A model trained anew on what was chosen, for all operations of the budget that are left.

        Returns:
            ``steps``, and after each of them the ``operations`` in all and the losses in bits, ``valid`` and
            ``test``.
        """
        every = self.settings.final // LOOKS
        looks = int((self.budget - spent) / self.costs.step + 1e-6) // every
        problem = self._problem(counts, self._most_steps, self.settings.horizon, run=1000)
        state, losses = problem.init(blank_weights(problem)), []
        for look in range(looks):
            state = went_on(problem, state, jnp.asarray(look * every), jnp.asarray(every))
            losses.append([self._bits(state, part) for part in ("valid", "test")])
        steps = every * np.arange(1, looks + 1)
        valid, test = np.array(losses).reshape(looks, 2).T
        operations = spent + steps * self.costs.step
        return {"steps": steps, "operations": operations, "valid": valid, "test": test}

    @property
    def _everything(self) -> Counts:
        return np.ones(self.settings.documents, np.int64)

    @property
    def _most_steps(self) -> int:
        return math.ceil(self.budget / self.costs.step)

    def _reference_losses(self) -> Float[np.ndarray, " n"]:
        """Of a model trained on the held-out documents, as long as the whole run."""
        held_out = np.arange(self.settings.held_out) + self.settings.documents
        counts = np.zeros(held_out[-1] + 1, np.int64)
        counts[held_out] = 1
        problem = self._problem(counts, self._most_steps, self.settings.horizon, run=2000)
        begin = problem.init(blank_weights(problem))
        steps = jnp.asarray(self.settings.horizon)
        state = went_on(problem, begin, jnp.asarray(0), steps)
        return np.asarray(losses_of(self._losses, state, jnp.asarray(self.documents.train)))

    def _problem(self, counts: Counts, rows: int, window: int, *, run: int) -> rfho.Problem:
        """Trained on documents of the counts, the held-out ones after those to train on; anew for each ``run``."""
        documents, settings = self.documents, self.settings
        generator = np.random.default_rng((self.seed, run))
        problem = training(
            self._model(run),
            np.concatenate([documents.train, documents.valid]),
            documents.valid,
            order(counts, rows, settings.batch, generator),
            rate=settings.rate,
            window=window,
        )
        return with_functions_of(self._compiled.setdefault((rows, window), problem), problem)

    def _model(self, run: int) -> Transformer:
        settings = self.settings
        return Transformer(
            len(self.documents.alphabet),
            settings.context,
            width=settings.width,
            heads=settings.heads,
            layers=settings.layers,
            key=jax.random.fold_in(jax.random.key(self.seed), run),
        )

    @functools.cached_property
    def _losses(self) -> Losses:
        model = self._model(0)
        return Losses(eqx.filter(model, eqx.is_array, inverse=True), self.settings.context + 1)

    def _bits(self, state: object, part: str) -> float:
        documents = jnp.asarray(getattr(self.documents, part))
        return float(jnp.mean(losses_of(self._losses, state, documents))) / math.log(2)
