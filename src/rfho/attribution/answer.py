"""What is found about the influence of examples: who caused an answer, who harms, what leaving out will do."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rfho.attribution import picture
from rfho.attribution.sweep import Asked
from rfho.attribution.validation import Validation, validated


class Ranked(NamedTuple):
    """Examples in order.

    Attributes:
        examples: their numbers.
        influence: the derivative by the weight of each.
    """

    examples: Int[np.ndarray, " count"]
    influence: Float[np.ndarray, " count"]


class Prediction(NamedTuple):
    """What leaving out examples is expected to do.

    Attributes:
        change: of each query, new minus old; shape (q,), or (subsets, q).
        error: its standard error over the runs, in the same shape; NaN if there was only one.
    """

    change: Float[np.ndarray, "*subsets q"]
    error: Float[np.ndarray, "*subsets q"]


class Influence(NamedTuple):
    """The derivative of each query by the weight of each training example, through all of training.

    A query is something that should be small, such as the loss on one example: an example with a *negative*
    influence has helped it, one with a positive influence has harmed it.

    Attributes:
        values: what the trained model answers to each query, averaged over the runs, with examples of the weight
            that was asked for; shape (q,).
        by_run: dE_j/dε_i of each run; shape (runs, q, n).
        drawn: how often each run had each example in a batch; shape (runs, n).
        memory: bytes that one run took beside the problem's own arrays, as predicted.
        asked: what was run, for `validate`.
    """

    values: Float[np.ndarray, " q"]
    by_run: Float[np.ndarray, "runs q n"]
    drawn: Float[np.ndarray, "runs n"]
    memory: int
    asked: Asked

    @property
    def mean(self) -> Float[np.ndarray, "q n"]:
        """dE_j/dε_i, averaged over the runs that had the example; 0 for one that was never drawn."""
        return _mean(self.by_run, self.drawn)

    def top(self, query: int, count: int = 10) -> Ranked:
        """The examples that helped ``query`` most: the causes of its small value, first the strongest."""
        return _ranked(self._row(query), count)

    def harmful(self, query: int | None = None, count: int = 10) -> Ranked:
        """The examples that harmed ``query`` most, or all queries on average."""
        row = self.mean.mean(axis=0) if query is None else self._row(query)
        most = _ranked(-row, count)
        return Ranked(most.examples, -most.influence)

    def predict(self, left_out: Any) -> Prediction:
        """How the queries would change if examples were left out, to first order.

        Args:
            left_out: numbers of examples, or a mask of shape (n,), or one for each of several subsets, of
                shape (subsets, n).

        Raises:
            ValueError: it is none of these.
        """
        masks = _as_masks(left_out, self.drawn.shape[1]).astype(float)
        change = -(masks @ self.mean.T)
        runs = self.by_run.shape[0]
        if runs == 1:
            return Prediction(change, np.full_like(change, np.nan))
        # Leave one run out (jackknife), as examples are missing from some of them.
        total, had = self.by_run.sum(axis=0), np.sum(self.drawn > 0, axis=0)
        without = zip(self.by_run, self.drawn > 0, strict=True)
        rest = ((total - run) / np.maximum(had - own, 1) for run, own in without)
        others = np.stack([-(masks @ other.T) for other in rest])
        spread = np.sum((others - others.mean(axis=0)) ** 2, axis=0)
        return Prediction(change, np.sqrt((runs - 1) / runs * spread))

    def validate(
        self,
        *,
        subsets: int = 50,
        fraction: float = 0.5,
        retrain: int = 0,
        antithetic: bool = False,
        key: Any = 0,
    ) -> Validation:
        """Whether `predict` is right: models are trained without random subsets, and compared.

        Args:
            subsets: how many random subsets are left out, one after another; 3 or more.
            fraction: of the examples in each of them.
            retrain: the truth is the mean over so many trainings in other orders, on what is kept; 0 for
                this run's own order, with the weights of what is left out at 0.
            antithetic: subsets come in pairs, a random half and the other half, from which `Validation` tells
                the score that no prediction by a number for each example can pass.
            key: a JAX key, or an integer.

        Cost:
            ``subsets`` training runs, times ``retrain`` if that is not 0; for smoothness 10 more, and 20 then.

        Returns:
            A `Validation`; its ``score`` is the linear datamodelling score.
        """
        return validated(
            self.asked,
            lambda masks: self.predict(masks).change,
            subsets=subsets,
            fraction=fraction,
            retrain=retrain,
            antithetic=antithetic,
            key=key,
        )

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each example and a column for each query."""
        import pandas  # pyright: ignore[reportMissingImports]

        frame = pandas.DataFrame(self.mean.T)
        return frame.rename_axis(index="example", columns="query")

    def plot(self, query: int = 0, count: int = 10) -> Any:
        """A `matplotlib.figure.Figure`: the most helpful and the most harmful examples of ``query``."""
        return picture.of_query(self.top(query, count), self.harmful(query, count), query=query)

    def __str__(self) -> str:
        runs, queries, examples = self.by_run.shape
        never = int(np.sum(self.drawn.sum(axis=0) == 0))
        lines = [
            f"influence of {examples} examples on {queries} queries, {runs} run{'s' * (runs > 1)}",
            f"most harmful on average: {', '.join(map(str, self.harmful(count=5).examples))}",
        ]
        lines += [f"{never} examples were never drawn"] if never else []
        return "\n".join(lines)

    def _row(self, query: int) -> Float[np.ndarray, " n"]:
        queries = self.values.shape[0]
        if not -queries <= query < queries:
            raise IndexError(f"query is {query}, but there are {queries}: 0 to {queries - 1}")
        return self.mean[query]


def _mean(
    by_run: Float[np.ndarray, "runs q n"], drawn: Float[np.ndarray, "runs n"]
) -> Float[np.ndarray, "q n"]:
    had = np.sum(drawn > 0, axis=0)
    return by_run.sum(axis=0) / np.maximum(had, 1)


def _ranked(row: Float[np.ndarray, " n"], count: int) -> Ranked:
    order = np.argsort(row, kind="stable")[:count]
    return Ranked(order, row[order])


def _as_masks(left_out: Any, examples: int) -> np.ndarray:
    chosen = np.asarray(left_out)
    if chosen.dtype == bool:
        if chosen.ndim in (1, 2) and chosen.shape[-1] == examples:
            return chosen
    elif np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1:
        if chosen.size and not -1 < chosen.min() <= chosen.max() < examples:
            raise ValueError(
                f"left_out has numbers from {chosen.min()} to {chosen.max()}, but there are {examples} examples"
            )
        return np.isin(np.arange(examples), chosen)
    raise ValueError(
        f"left_out is {chosen.dtype}{list(chosen.shape)}, but it must be numbers of examples, or a bool for each "
        f"of the {examples}, for one subset or for several"
    )
