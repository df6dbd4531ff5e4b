"""Which training examples caused this: the question."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rfho._programs import trees as tree
from rfho.attribution.answer import Influence
from rfho.attribution.examples import Examples, examples_of
from rfho.attribution.plan import planned
from rfho.attribution.sweep import Asked, Queries, Swept, reaches, swept, times_drawn
from rfho.attribution.validation import number_left_out
from rfho.errors import HyperGradientError, Result, positive_int, positive_number
from rfho.memory import AbstractCheckpoint, Recompute
from rfho.problem import Fresh
from rfho.problem.fresh import drawn
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper


def influence(
    problem: AbstractMoment,
    hyper: Hyper = None,
    queries: Queries | None = None,
    *,
    runs: int = 1,
    fraction: float = 0.0,
    weight: float = 1.0,
    key: Any = 0,
    chunk: int | None = None,
    checkpoint: AbstractCheckpoint = Recompute(),
) -> Influence:
    r"""The influence of every training example on the trained model's answers, through all of training.

    .. math:: g_{ij} = \frac{d E_j(w_T)}{d \varepsilon_i}, \qquad
              L = \frac1{|b|} \sum_{i \in b} \varepsilon_i\, \ell_i \text{ in every step}

    exact for the run at hand, whatever the optimiser. All queries share one run, its tape, and whatever of the
    way back does not depend on them. One run tells what *it* owes to each example; another order or another
    start tells something else where training is not smooth. Averages over runs, each on a random subset, tell
    what holds for all. At ε = 1 it tells what *begins* to happen as weights fall: before you leave out many
    examples, ask at the weight that they will have on average, or less.

    Args:
        problem: its loss must be `weighted`, its ``train`` arrays, a `rfho.Stream` or a `rfho.Indexed` (also
            inside of a `rfho.Keyed`, or `rfho.Fresh`).
        hyper: λ, which is not learned here; None if the dynamics ask for none.
        queries: what is asked, ``(params, hyper, batch) -> (q,)``, with the problem's ``valid`` for batch: the
            losses of examples, of groups, a metric. By default the problem's objective.
        runs: how many trainings. With more than one, each has an order of its own: drawn by ``key``, or the
            draw k = 0, 1, … of `rfho.Fresh`.
        fraction: of the examples, that each run leaves out at random; it then takes as many epochs on what is
            left. 0 for none.
        weight: ε of all examples that are trained on, where the derivative is taken. If half of the examples
            will be left out, 0.5 comes nearest to the sizes of changes. Less is gentler training, as a smaller rate
            would be: where training is not smooth its derivatives rank subsets better, in sizes of their own.
            An optimiser that divides by the size of gradients, as Adam does, sees no difference.
        key: a JAX key or an integer, for orders and subsets.
        chunk: how many queries go back at a time; by default as many as are fastest and fit.
        checkpoint: the memory policy.

    Returns:
        An `Influence`.

    Cost:
        For each run one training with what the policy adds, and for each query the part of a step's
        Hessian-vector product that depends on it. Memory: the tape, ``chunk`` adjoints, one number for each
        pair of example and query; on the host, one such number for each run.

    Raises:
        TypeError: the loss is not weighted, or nobody knows which example is in which batch.
        ValueError: several runs would all be the same, or an argument is out of range.
        MemoryError: it does not fit; the message says what would.
        HyperGradientError: an answer or an influence is not finite.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def each(w, hyper, batch):
        ...     return (w - batch) ** 2
        >>> loss = rfho.attribution.weighted(each)
        >>> dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), init=jnp.zeros(()))
        >>> train, valid = jnp.array([0.0, 1.0, 5.0]), jnp.array([1.0])
        >>> problem = rfho.Problem(dynamics, loss, train, valid, horizon=50)
        >>> found = rfho.attribution.influence(problem, queries=each)
        >>> found.harmful(count=1).examples.tolist()  # the outlier pulls w from 1 to 2
        [2]

    References:
        Ilyas and Engstrom, "MAGIC: near-optimal data attribution for deep learning", arXiv 2504.16430.
    """
    runs = positive_int(runs, "runs", "influence")
    weight = positive_number(weight, "weight", "influence")
    if chunk is not None:
        positive_int(chunk, "chunk", "influence")
    examples = examples_of(drawn(problem.train, 0))
    out = number_left_out(examples.number, fraction, "influence") if fraction else 0
    kept = examples.number - out
    _check_that_runs_differ(problem, examples, runs, out)
    horizon = examples.steps(kept, problem.horizon) if out else problem.horizon
    asked = Asked(problem.at(problem.k), hyper, queries, examples, problem.horizon)
    _check_that_weights_reach(asked)
    plan = planned(asked, checkpoint=checkpoint, chunk=chunk)
    for_orders, for_subsets = jax.random.split(tree.as_key(key, "influence"))
    anew = bool(out) or (runs > 1 and not isinstance(problem.train, Fresh))

    def of_run(run: int) -> tuple[Swept, Float[Array, " n"]]:
        order = jax.random.fold_in(for_orders, run)
        subset = jax.random.permutation(jax.random.fold_in(for_subsets, run), examples.number)
        chosen = jnp.sort(subset[:kept]) if anew else None
        which = jnp.asarray(run), jnp.asarray(weight)
        return _of_one_run(
            asked, problem.train, which, (chosen, order), checkpoint, plan.chunk, horizon
        )

    values, by_run, times = _gathered(of_run, runs)
    _check_finite(values, by_run)
    return Influence(values.mean(axis=0), by_run, times, plan.memory, asked)


def _gathered(
    of_run: Callable[[int], tuple[Swept, Float[Array, " n"]]], runs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers, influence and draws of every run, on the host: one copy, and not a list and its stack."""
    found: list[np.ndarray] = []
    for run in range(runs):
        one, times = jax.device_get(of_run(run))
        numbers = one.values, one.influence.T, times
        found = found or [np.empty((runs, *each.shape), each.dtype) for each in numbers]
        for all_runs, each in zip(found, numbers, strict=True):
            all_runs[run] = each
    return found[0], found[1], found[2]


@eqx.filter_jit
def _of_one_run(
    asked: Asked,
    train: Any,
    which: tuple[Array, Array],
    anew: tuple[Int[Array, " kept"] | None, Array],
    checkpoint: AbstractCheckpoint,
    chunk: int,
    horizon: int,
) -> tuple[Swept, Float[Array, " n"]]:
    (run, weight), (chosen, order) = which, anew
    examples = examples_of(drawn(train, run))
    examples = examples if chosen is None else examples.anew(chosen, order)
    weights = weight * jnp.ones(examples.number)
    found = swept(asked.on(examples, horizon), weights, checkpoint=checkpoint, chunk=chunk)
    return found, times_drawn(examples, horizon)


def _check_that_runs_differ(
    problem: AbstractMoment, examples: Examples, runs: int, out: int
) -> None:
    fixed = examples.order is None and examples.key is None and not out
    if runs > 1 and fixed and not isinstance(problem.train, Fresh):
        raise ValueError(
            f"influence got runs={runs}, but every batch is all of the data, so that all runs would be the same: "
            "give fraction=0.5 for runs on random subsets, or train as a rfho.Stream or rfho.Fresh"
        )


def _check_that_weights_reach(asked: Asked) -> None:
    if not reaches(asked):
        raise TypeError(
            "the weights of the examples do not reach a step, so that their influence would be zero: make the loss "
            "of the dynamics of rfho.attribution.weighted(each), where each returns one loss for each example, and "
            "hand it the batch as it comes"
        )


def _check_finite(values: np.ndarray, by_run: np.ndarray) -> None:
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        raise HyperGradientError(
            Result.NON_FINITE_VALUE,
            f"query {int(np.argmin(finite))} has an answer that is not finite: training has diverged, or "
            "the query is infinite there; rfho.diagnose says where it began",
        )
    if not np.isfinite(by_run).all():
        raise HyperGradientError(
            Result.NON_FINITE_HYPERGRADIENT,
            "an influence is not finite though the answers are: a derivative is infinite (√ or a norm at 0: "
            "add a small number under the root) or an adjoint overflowed; rfho.diagnose says where it began",
        )
