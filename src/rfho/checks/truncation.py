r"""How much a truncated sweep leaves out, for every window from one sweep.

On its way back a sweep passes the hypergradients of all windows, K = 1, 2, …, T:

.. math:: h_{T-K} = \partial_\lambda E + \sum_{t=T-K+1}^{T} \alpha_t B_t

They are written down as they pass. So truncation (arXiv 1810.10667) is a decision with a number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rfho._engines.reverse import Sweep, chain_of, through_init
from rfho._programs import trees as tree
from rfho.domains import Reals
from rfho.domains.space import Space
from rfho.errors import positive_int
from rfho.hyper_gradients import TruncatedHyperGradient
from rfho.memory import AbstractCheckpoint, Recompute, Span
from rfho.memory.tape import blank_rows, put
from rfho.problem.moment import AbstractMoment, select
from rfho.problem.validate import validate
from rfho.typing import Hyper, PyTree, Step


class BiasCurve(NamedTuple):
    """What truncated hypergradients are wrong by, at one λ.

    Attributes:
        windows: K, in increasing order; shape (n,).
        bias: ‖h_K - h‖ / ‖h‖ over all of λ; shape (n,).
        by_leaf: the same for each leaf of λ by itself, by its path; arrays of shape (n,).
        cosine: of the angle between h_K and h: above 0 where h_K is a descent direction; shape (n,).
        hypergradients: h_K, in the structure of λ with a leading axis of n.
        exact: h, the hypergradient of the whole run.
    """

    windows: np.ndarray
    bias: np.ndarray
    by_leaf: dict[str, np.ndarray]
    cosine: np.ndarray
    hypergradients: Hyper
    exact: Hyper

    def window(self, bias: float = 0.1) -> int:
        """The smallest window from which on the bias stays at or below ``bias``.

        Raises:
            ValueError: there is none among those that were looked at.
        """
        if not bias >= 0:
            raise ValueError(f"window got bias={bias!r}, but it must be a number of 0 or more")
        (above,) = np.nonzero(~(self.bias <= bias))
        first = above[-1] + 1 if above.size else 0
        if first == self.windows.size:
            raise ValueError(
                f"the largest window, {self.windows[-1]}, has a bias of {self.bias[-1]:.2g}, above {bias:g}: "
                "look at larger ones, or take ReverseHyperGradient"
            )
        return int(self.windows[first])

    def method(self, bias: float = 0.1) -> TruncatedHyperGradient:
        """`TruncatedHyperGradient` with the smallest window that has no larger bias; see `window`."""
        return TruncatedHyperGradient(self.window(bias))

    def __str__(self) -> str:
        """A table of windows that double."""
        shown = np.searchsorted(self.windows, 2 ** np.arange(self.windows[-1].item().bit_length()))
        shown = np.unique([*shown, self.windows.size - 1])
        rows = [
            f"{self.windows[i]:>8}  {self.bias[i]:>8.2g}  {self.cosine[i]:>8.3f}" for i in shown
        ]
        return "\n".join([f"{'window':>8}  {'bias':>8}  {'cosine':>8}", *rows])


def bias_curve(
    problem: AbstractMoment,
    hyper: Hyper,
    *,
    windows: Sequence[int] | None = None,
    domain: PyTree = Reals(),
    checkpoint: AbstractCheckpoint = Recompute(),
) -> BiasCurve:
    """What `TruncatedHyperGradient` would be wrong by, for every window, from one sweep of the whole run.

    The bias belongs to this λ: look again where λ has moved far.

    Args:
        problem: what is tuned.
        hyper: λ.
        windows: the windows to look at, each from 1 to the horizon; all of them by default.
        domain: a domain, or a tree prefix of ``hyper``; `Fixed` leaves are not learned.
        checkpoint: the memory policy of the sweep.

    Cost:
        One `ReverseHyperGradient`, and memory of one λ for each window.

    Raises:
        TypeError, ValueError: problem and hyperparameters do not fit each other, or a window is none.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> def ridge(w, hyper, batch):
        ...     return 0.5 * (w - 1) ** 2 + 0.5 * hyper * w**2
        >>> dynamics = rfho.Descent(ridge, lambda hyper: optax.sgd(0.25), init=jnp.zeros(()))
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, horizon=40)
        >>> curve = rfho.checks.bias_curve(problem, 1.0)
        >>> [round(float(bias), 3) for bias in curve.bias[:4]]  # halved by each step
        [0.5, 0.25, 0.125, 0.062]
        >>> curve.method(bias=0.1).window
        4
    """
    looked_at = _checked(windows, problem.horizon)
    space = Space.of(domain, hyper)
    free, rest = space.split(hyper)
    free = tree.as_hyper(free)
    moment = problem if problem.rest is not None else problem.at(problem.k, rest)
    found, exact = jax.device_get(_swept(moment, free, checkpoint, looked_at))
    gaps = jax.tree.map(lambda leaf, whole: _norms(leaf - whole), found, exact)
    sizes = jax.tree.map(lambda whole: np.linalg.norm(np.ravel(whole)), exact)
    total, size = _root_of_sum(gaps), _root_of_sum(sizes)
    lengths = _root_of_sum(jax.tree.map(_norms, found))
    products = jax.tree.map(lambda leaf, whole: _flat(leaf) @ np.ravel(whole), found, exact)
    leaves = jax.tree_util.tree_leaves_with_path(gaps)
    by_leaf = {
        tree.path_of(path, "hyper"): _ratio(gap, norm)
        for (path, gap), norm in zip(leaves, jax.tree.leaves(sizes), strict=True)
    }
    cosine = _ratio(sum(jax.tree.leaves(products)), size * lengths)
    return BiasCurve(np.asarray(looked_at), _ratio(total, size), by_leaf, cosine, found, exact)


@eqx.filter_jit
def _swept(
    problem: AbstractMoment,
    hyper: Hyper,
    checkpoint: AbstractCheckpoint,
    windows: tuple[int, ...],
) -> tuple[Hyper, Hyper]:
    """The hypergradients of the windows, and that of the whole run."""
    validate(problem, hyper)
    horizon = problem.horizon
    span = Span(0, horizon)
    chain = chain_of(problem, hyper, checkpoint.keeps())
    plain = chain.pull_back
    # A window that nobody asked for is written into one row more.
    row_of = np.full(horizon + 1, len(windows))
    row_of[list(windows)] = np.arange(len(windows))

    def pull_back(at: PyTree, state: PyTree, memory: PyTree, t: Step) -> PyTree:
        cotangents, rows = at
        adjoint, hypergradient = plain(cotangents, state, memory, t)
        entry = select(problem, hyper, hypergradient)
        row = jnp.asarray(row_of)[horizon - t]
        return (adjoint, hypergradient), put(rows, entry, row)

    state = problem.init(hyper)
    tape = checkpoint.blank(chain, state, span)
    final, tape = checkpoint.forward(chain, state, span, tape)
    reading = problem.read(final, hyper)
    begin = (reading.by_state, reading.by_hyper), blank_rows(hyper, len(windows) + 1)
    noting = chain._replace(pull_back=pull_back)
    ((adjoint, total), rows), tape = checkpoint.backward(noting, tape, span, begin)
    swept = Sweep(reading.value, total, final, reading.by_state, adjoint, tape)
    exact = select(problem, hyper, through_init(problem, hyper, swept).hypergradient)
    rows = jax.tree.map(lambda leaf: leaf[:-1], rows)
    if windows[-1] == horizon:
        rows = jax.tree.map(lambda leaf, whole: leaf.at[-1].set(whole), rows, exact)
    return rows, exact


def _checked(windows: Sequence[int] | None, horizon: int) -> tuple[int, ...]:
    if windows is None:
        return tuple(range(1, horizon + 1))
    found = sorted({positive_int(window, "windows", "bias_curve") for window in windows})
    if not found or found[-1] > horizon:
        raise ValueError(
            f"bias_curve got windows={windows!r}, but there must be one or more, from 1 to the horizon of {horizon}"
        )
    return tuple(found)


def _flat(leaf: np.ndarray) -> np.ndarray:
    return leaf.reshape(leaf.shape[0], -1)


def _norms(leaf: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_flat(leaf), axis=1)


def _root_of_sum(norms: PyTree) -> Any:
    return np.sqrt(sum(norm**2 for norm in jax.tree.leaves(norms)))


def _ratio(part: Any, whole: Any) -> np.ndarray:
    """``part / whole``, 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, 0.0, np.asarray(part) / whole)
