r"""Which change of training makes near hypergradients agree, and what that costs.

.. math:: S = \operatorname{mean}_j \frac{\sum_i (|g_i| + |g'_i|)\, \operatorname{sgn}(g_i)\,
          \operatorname{sgn}(g'_i)}{\sum_i |g_i| + |g'_i|}, \qquad
          g = \nabla f(\lambda - h_j d_j), \quad g' = \nabla f(\lambda + h_j d_j)

The metasmoothness of arXiv 2503.13751, over several directions d_j and distances h_j. Where training is chaotic
S is about 0, and a step along the hypergradient a matter of luck, however exact it is. At a minimum of f it is
-1 with no harm: both sides point at it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from rfho._programs import trees as tree
from rfho.checks.diagnosis.smoothness import agreement_of
from rfho.checks.line import LONGEST, Line, line_through
from rfho.checks.repairs import Repair, ready_made
from rfho.checks.traced import refuse_traced
from rfho.domains import Reals
from rfho.errors import positive_int
from rfho.hyper_gradients import AbstractHyperGradient, ReverseHyperGradient
from rfho.hyper_gradients.once import estimate_once, placed
from rfho.problem import Problem
from rfho.typing import Hyper, PyTree


class Trial(NamedTuple):
    """A problem that was tried.

    Attributes:
        repairs: the names of what was changed; empty for the problem as it was.
        agreement: S, from -1 to 1; a pair of points with a number that is not finite counts as -1.
        objective: the median over the points, summed over the objectives if there are several.
        cost: how much more that is than without repairs.
        problem: the problem itself.
    """

    repairs: tuple[str, ...]
    agreement: float
    objective: float
    cost: float
    problem: Problem


class Smoothed(NamedTuple):
    """What `smooth` tried; it prints as a table.

    Attributes:
        trials: in order, the problem as it was first.
        wanted: the agreement that was asked for.
    """

    trials: tuple[Trial, ...]
    wanted: float

    @property
    def chosen(self) -> Trial:
        """The trial of lowest objective among those that agree as wanted; if none does, the one that agrees most."""
        enough = [trial for trial in self.trials if trial.agreement >= self.wanted]
        if enough:
            return min(enough, key=lambda trial: trial.objective)
        return max(self.trials, key=lambda trial: trial.agreement)

    @property
    def problem(self) -> Problem:
        """What to tune instead: the problem of `chosen`."""
        return self.chosen.problem

    @property
    def found(self) -> bool:
        """Whether `chosen` agrees as wanted."""
        return self.chosen.agreement >= self.wanted

    def __str__(self) -> str:
        names = [" + ".join(trial.repairs) or "as it is" for trial in self.trials]
        width = max(map(len, ("repair", *names)))
        lines = [f"{'repair':<{width}}  agreement  {'objective':>10}  {'cost':>10}"]
        for name, trial in zip(names, self.trials, strict=True):
            chosen = "  <- chosen" if trial is self.chosen else ""
            lines.append(
                f"{name:<{width}}  {trial.agreement:>9.2f}  {trial.objective:>10.4g}  {trial.cost:>+10.2g}{chosen}"
            )
        if not self.found:
            lines.append(f"none agrees by {self.wanted:g}")
        return "\n".join(lines)


def smooth(
    problem: Problem,
    hyper: Hyper,
    repairs: Mapping[str, Repair | Problem] | None = None,
    *,
    agreement: float = 0.9,
    distance: float = 0.01,
    pairs: int = 8,
    together: int = 2,
    method: AbstractHyperGradient = ReverseHyperGradient(),
    domain: PyTree = Reals(),
    key: jax.Array | int = 0,
) -> Smoothed:
    """Searches a change of training after which near hypergradients agree in their signs, and tells its price.

    If the problem agrees as it is, nothing is changed. Otherwise each repair is tried by itself, at the same
    points; where none is enough, the best of them is kept and each of the others tried on top. The price is told
    at λ as it is: tuning afterwards may well earn it back. So leave the objective alone, that prices can be
    compared.

    Args:
        problem: what is tuned.
        hyper: λ, around which it is looked.
        repairs: by name, functions from a problem to a problem, or problems that have been built already, which
            are tried by themselves alone. By default those of `rfho.checks` that apply: `clipped`, `rooted`,
            `slowed`, `warmed_up`, `enlarged`, `shortened`.
        agreement: S, which is wanted; between -1 and 1.
        distance: h, of the farthest points from λ, in sizes of λ's leaves; at most 0.1. About as far as an outer
            step goes.
        pairs: directions, with two points each, at h / pairs, 2 h / pairs, …, h.
        together: how many repairs may be taken at once.
        method: of the hypergradients.
        domain: a domain, or a tree prefix of ``hyper`` with domains, which no point leaves.
        key: a JAX random key, or an int as its seed, for the directions.

    Cost:
        Two hypergradients for each pair, and one compilation, for the problem and for each repair; the same again
        for each further repair that is taken together.

    Returns:
        A `Smoothed`; ``smoothed.problem`` is the one to tune. Near a minimum of f hypergradients on both sides point
        at each other, which is no chaos and is not told from it: ask where there is some way to go, or nearer.

    Raises:
        TypeError, ValueError: an argument is not of its kind, or problem, hyperparameters and a repair do not fit.

    Example:
        Two valleys and a rate with which training leaps between them; held back, it arrives:

        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w**2 - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.array(0.3),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 0.8) ** 2, horizon=60)
        >>> smoothed = rfho.smooth(problem, {"lr": 0.36}, {"slower": rfho.checks.slowed(0.05)})
        >>> [trial.agreement > 0.9 for trial in smoothed.trials], smoothed.chosen.repairs
        ([False, True], ('slower',))

    References:
        Engstrom, Ilyas, Chen, Feldmann, Moses, Madry, "Optimizing ML training with metagradient descent", arXiv
        2503.13751.
    """
    refuse_traced((problem, hyper), "smooth")
    if not isinstance(problem, Problem):
        raise TypeError(f"smooth got a {type(problem).__name__} where a rfho.Problem was expected")
    positive_int(together, "together", "smooth")
    _check_numbers(agreement, distance)
    _, free, space = placed(problem, hyper, domain)
    keys = jax.random.split(tree.as_key(key, "smooth"), positive_int(pairs, "pairs", "smooth"))
    lines = [line_through(space, free, one) for one in keys]

    def tried(names: tuple[str, ...], candidate: Problem, before: float | None) -> Trial:
        moment, _, _ = placed(candidate, hyper, domain)
        look = lambda point: _looked(estimate_once(moment, point, method))  # noqa: E731
        agrees, value = _measured(look, lines, distance)
        return Trial(names, agrees, value, 0.0 if before is None else value - before, candidate)

    trials = [tried((), problem, None)]
    candidates = ready_made(problem, hyper) if repairs is None else repairs
    base, left = trials[0], dict(_checked(candidates))
    while left and len(base.repairs) < together:
        if max(trial.agreement for trial in trials) >= agreement:
            break
        on_top = base.repairs
        here = [
            tried((*on_top, name), _applied(repair, base.problem, name), trials[0].objective)
            for name, repair in left.items()
            if not (on_top and isinstance(repair, Problem))
        ]
        trials += here
        best = max(here, key=lambda trial: trial.agreement, default=base)
        if best.agreement <= base.agreement:
            break
        base = best
        if isinstance(left.pop(best.repairs[-1]), Problem):
            break
    return Smoothed(tuple(trials), agreement)


class _Look(NamedTuple):
    """What was seen at a point: the sum of the objectives, and the hypergradient in a row."""

    value: float
    gradient: np.ndarray


def _looked(estimate: PyTree) -> _Look:
    value, gradient = jax.device_get((estimate.value, estimate.hypergradient))
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(gradient)]
    return _Look(float(sum(map(float, jax.tree.leaves(value)))), np.concatenate(leaves))


def _measured(
    look: Callable[[Hyper], _Look], lines: list[Line], distance: float
) -> tuple[float, float]:
    """S over the lines, and the median of the objective."""
    agreements, values = list[float](), list[float]()
    for j, line in enumerate(lines, start=1):
        far = distance * j / len(lines)
        centre = far if line.one_sided else 0.0
        one, other = (look(line.at(centre + h)) for h in (-far, far))
        values += [one.value, other.value]
        agrees = agreement_of(one.gradient, other.gradient)
        agreements.append(agrees if np.isfinite(agrees) else -1.0)
    known = np.nan_to_num(values, nan=np.inf, posinf=np.inf)
    return float(np.mean(agreements)), float(np.median(known))


def _applied(repair: Repair | Problem, problem: Problem, name: str) -> Problem:
    made = repair if isinstance(repair, Problem) else repair(problem)
    if not isinstance(made, Problem):
        raise TypeError(
            f"smooth's repair {name!r} gave a {type(made).__name__}, but it must give a rfho.Problem"
        )
    return made


def _checked(repairs: Mapping[str, Repair | Problem]) -> Mapping[str, Repair | Problem]:
    if not isinstance(repairs, Mapping):
        raise TypeError(
            f"smooth got repairs={repairs!r}, but it must be a mapping from names to functions that make a problem "
            'of a problem: {"eps 1e-4": rfho.checks.rooted(1e-4)}'
        )
    for name, repair in repairs.items():
        if not isinstance(repair, Problem) and not callable(repair):
            raise TypeError(
                f"smooth got {name!r}: {repair!r}, but a repair must be a function problem -> problem, or a problem"
            )
    return repairs


def _check_numbers(agreement: float, distance: float) -> None:
    if not -1 <= agreement <= 1:
        raise ValueError(
            f"smooth got agreement={agreement!r}, but it must be a number from -1 to 1"
        )
    if not 0 < distance <= LONGEST:
        raise ValueError(
            f"smooth got distance={distance!r}, but it must be a number above 0 and at most {LONGEST}"
        )
