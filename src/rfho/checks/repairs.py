r"""Changes of a problem that make training smoother, as functions from a problem to a problem.

Each has its price, which `rfho.smooth` tells. Those of the optimiser's update ask for a `Descent`; whatever else
a training has (a scale of logits, a momentum, an initial state) is the user's to build anew.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Int

from rfho._programs import trees as tree
from rfho._programs.rooted import takes_roots, with_rooted
from rfho.dynamics import Descent
from rfho.errors import positive_int, positive_number
from rfho.problem import Problem, Stream
from rfho.typing import Hyper, PyTree

Repair = Callable[[Problem], Problem]
"""A change of a problem."""

_Update = Callable[..., tuple[PyTree, PyTree]]


def clipped(limit: float) -> Repair:
    r"""Gradients held below a length, without a corner: :math:`g / \sqrt{1 + \|g\|^2 / c^2}`.

    Args:
        limit: c, the length that no gradient reaches; a positive number.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(lambda w, h, b: 50 * w**2, lambda h: optax.sgd(h), jnp.ones(()))
        >>> problem = rfho.Problem(dynamics, lambda w, h, b: w, horizon=1)
        >>> clipped = rfho.checks.clipped(1.0)(problem)
        >>> round(float(rfho.hyper_gradient(clipped, 0.1).aux.params), 3)  # -9 without
        0.9
    """
    limit = positive_number(limit, "limit", "clipped")

    def changed(update: _Update) -> _Update:
        def after(gradient: PyTree, *others: Any, **extra: Any) -> tuple[PyTree, PyTree]:
            squared = tree.dot(gradient, jax.tree.map(jnp.conj, gradient))
            shrink = jax.lax.rsqrt(1 + squared / limit**2)
            return update(tree.scale(shrink, gradient), *others, **extra)

        return after

    return lambda problem: _updating(problem, changed, "clipped")


def rooted(epsilon: float) -> Repair:
    r"""A number under every root that the optimiser takes, as Adam and its kin do: :math:`\sqrt{v + \varepsilon}`.

    Unlike the ε beside the root, which these have anyway, it bounds the derivative.

    Args:
        epsilon: ε, beside the squares of gradients; a positive number.

    Example:
        >>> import rfho
        >>> repairs = {"eps 1e-6": rfho.checks.rooted(1e-6), "eps 1e-4": rfho.checks.rooted(1e-4)}
    """
    epsilon = positive_number(epsilon, "epsilon", "rooted")

    def changed(update: _Update) -> _Update:
        def after(
            gradient: PyTree, slots: PyTree, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, PyTree]:
            inside = lambda g, s, w, extra: update(g, s, w, **extra)  # noqa: E731
            return with_rooted(inside, epsilon)(gradient, slots, params, extra)

        return after

    return lambda problem: _updating(problem, changed, "rooted")


def slowed(factor: float) -> Repair:
    """Updates multiplied by a factor, whatever rate is learned.

    Args:
        factor: a positive number.

    Example:
        >>> import rfho
        >>> repair = rfho.checks.slowed(0.5)
    """
    factor = positive_number(factor, "factor", "slowed")

    def changed(update: _Update) -> _Update:
        def after(*given: Any, **extra: Any) -> tuple[PyTree, PyTree]:
            updates, slots = update(*given, **extra)
            return tree.scale(factor, updates), slots

        return after

    return lambda problem: _updating(problem, changed, "slowed")


class Warming(NamedTuple):
    """The slots of an optimiser that is `warmed_up`.

    Attributes:
        slots: its own.
        t: the updates done.
    """

    slots: PyTree
    t: Int[Array, ""]


def warmed_up(steps: int) -> Repair:
    """Updates that grow in proportion to the step, over the first steps.

    Args:
        steps: how many, an int >= 1.

    Example:
        >>> import rfho
        >>> repair = rfho.checks.warmed_up(10)
    """
    positive_int(steps, "steps", "warmed_up")

    def changed(optim: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
        def update(
            updates: PyTree, state: Any, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, Any]:
            updates, slots = optim.update(updates, state.slots, params, **extra)
            part = jnp.minimum(1.0, (state.t + 1) / steps)
            return tree.scale(part, updates), Warming(slots, state.t + 1)

        def init(params: PyTree) -> Warming:
            return Warming(optim.init(params), jnp.zeros((), jnp.int32))

        return optax.GradientTransformationExtraArgs(init, update)

    return lambda problem: _optimised(problem, changed, "warmed_up", own=lambda slots: slots.slots)


def shortened(share: float) -> Repair:
    """Fewer steps of training.

    Args:
        share: of the horizon, between 0 and 1.

    Example:
        >>> import rfho
        >>> repair = rfho.checks.shortened(0.5)
    """
    share = positive_number(share, "share", "shortened", at_most=1.0)

    def repaired(problem: Problem) -> Problem:
        return _with(problem, horizon=max(1, round(share * problem.horizon)))

    return repaired


def enlarged(times: int) -> Repair:
    """Larger batches of a `Stream`, up to all of its examples.

    Args:
        times: as many examples, an int >= 1.

    Example:
        >>> import rfho
        >>> repair = rfho.checks.enlarged(4)
    """
    positive_int(times, "times", "enlarged")

    def repaired(problem: Problem) -> Problem:
        stream = problem.train
        if not isinstance(stream, Stream):
            raise TypeError(
                f"enlarged changes the batches of a rfho.Stream, but train is a {type(stream).__name__}: write a "
                "function that builds the problem with larger batches"
            )
        examples = jax.tree.leaves(stream.data)[0].shape[0]
        size = min(times * stream.size, examples)
        return _with(problem, train=Stream(stream.data, size, stream.key))

    return repaired


def ready_made(problem: Problem, hyper: Hyper) -> Mapping[str, Repair]:
    """The repairs that apply to a problem as it is, by what one writes for them; `rfho.smooth` tries them.

    Those of the optimiser where training is a `Descent` (`rooted` if it takes roots), `enlarged` where its data
    are a `Stream`, `shortened` always.

    Args:
        problem: what is tuned.
        hyper: λ.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(lambda w, h, b: w**2, lambda h: optax.sgd(h), jnp.ones(()))
        >>> problem = rfho.Problem(dynamics, lambda w, h, b: w, horizon=8)
        >>> list(rfho.checks.ready_made(problem, 0.1))[-2:]
        ['warmed_up(2)', 'shortened(0.5)']
    """
    found: dict[str, Repair] = {}
    if isinstance(problem.dynamics, Descent):
        found = {f"clipped({limit})": clipped(limit) for limit in (1.0, 0.1)}
        if _divides_by_a_root(problem, hyper):
            found |= {f"rooted({epsilon})": rooted(epsilon) for epsilon in (1e-6, 1e-4)}
        found |= {f"slowed({factor})": slowed(factor) for factor in (0.5, 0.1)}
        steps = max(1, problem.horizon // 4)
        found[f"warmed_up({steps})"] = warmed_up(steps)
    if isinstance(problem.train, Stream):
        found["enlarged(4)"] = enlarged(4)
    return found | {"shortened(0.5)": shortened(0.5)}


def _divides_by_a_root(problem: Problem, hyper: Hyper) -> bool:
    descent = _descent(problem, "rooted")
    state = jax.eval_shape(problem.init, hyper)
    gradient = jax.eval_shape(
        lambda s: descent.gradient(s.params, hyper, problem.train_batch(0)), state
    )
    return takes_roots(lambda s, g: descent.update(s, g, hyper), state, gradient)


def _updating(problem: Problem, changed: Callable[[_Update], _Update], of: str) -> Problem:
    """The problem with another update and the same slots."""

    def optimiser(
        optim: optax.GradientTransformationExtraArgs,
    ) -> optax.GradientTransformation:
        return optax.GradientTransformationExtraArgs(optim.init, changed(optim.update))

    return _optimised(problem, optimiser, of)


def _optimised(
    problem: Problem,
    changed: Callable[[optax.GradientTransformationExtraArgs], optax.GradientTransformation],
    of: str,
    *,
    own: Callable[[PyTree], PyTree] | None = None,
) -> Problem:
    """The problem with another optimiser, of whose slots ``own`` are those of the old one."""
    descent = _descent(problem, of)
    plain = descent.optim
    optim = lambda hyper: changed(optax.with_extra_args_support(plain(hyper)))  # noqa: E731
    return _with(problem, dynamics=descent.under(optim, own))


def _with(
    problem: Problem, *, dynamics: Any = None, train: Any = None, horizon: int | None = None
) -> Problem:
    """The problem with other parts."""
    return Problem(
        problem.dynamics if dynamics is None else dynamics,
        problem.objective,
        problem.train if train is None else train,
        problem.valid,
        problem.horizon if horizon is None else horizon,
    )


def _descent(problem: Problem, of: str) -> Descent:
    dynamics = problem.dynamics
    if not isinstance(dynamics, Descent):
        raise TypeError(
            f"{of} changes the optimiser of a rfho.Descent, but dynamics is a {type(dynamics).__name__}: write a "
            "function that builds the problem with other dynamics"
        )
    return dynamics
