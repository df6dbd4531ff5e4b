"""The outer loop as a pure pair of functions, for those with a loop of their own.

    u = chart(λ)    u ← u + update(∂unchart(u)ᵀ g)    λ ← project(unchart(u))

Projection after the step is that of arXiv 1703.01785; a chart changes what the outer step size
means.
"""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from rfho._programs import trees as tree
from rfho._programs.begun import begun, begun_in_place
from rfho.domains import Reals
from rfho.domains.space import Rest, Space
from rfho.hyper_gradients import AbstractHyperGradient, Estimate, ReverseHyperGradient
from rfho.memory.shards import is_spread
from rfho.optim.certain import Certain
from rfho.outer.beginning import Reserved, beginning
from rfho.problem.fresh import Fresh
from rfho.problem.moment import AbstractMoment, Moment
from rfho.problem.problem import Problem
from rfho.typing import Hyper, Params, PyTree

REVERSE = ReverseHyperGradient()
ADAM = optax.adam(0.01)
"""The defaults of all verbs: one object each, so that equal calls share their programs."""


class TunerState(NamedTuple):
    """Where an outer loop stands: one pytree, so that jit, vmap and files need no code of their own.

    Attributes:
        free: the learned leaves of λ_k; None elsewhere.
        rest: the others.
        space: where the learned ones may lie.
        slots: the outer optimiser's.
        carry: the method's.
        step: k, outer steps done.
        finite: whether every value, hypergradient and λ so far was finite.
    """

    free: Hyper
    rest: Rest
    space: Space
    slots: PyTree
    carry: PyTree
    step: Int[Array, ""]
    finite: Bool[Array, ""]

    @property
    def hyper(self) -> Hyper:
        """λ_k, as it was given."""
        return self.rest.join(self.free)


class Tuner(eqx.Module):
    """One outer loop: a method, an outer optimiser, a domain.

    Args:
        method: how hypergradients are computed.
        optim: any Optax optimiser; those that ask for the value or its gradient at other points (`optax.lbfgs`,
            `optax.polyak_sgd`) get them. One rate rarely suits every hyperparameter: see `optax.partition`.
        domain: a domain, or a tree prefix of ``hyper`` with domains at its leaves.

    Raises:
        TypeError: an argument is not of its kind.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> tuner = rfho.Tuner(optim=optax.sgd(0.1), domain=rfho.UnitInterval())
        >>> state = tuner.init(problem, {"lr": 0.1})
        >>> for _ in range(3):
        ...     state, estimate = tuner.step(problem, state)
        >>> round(float(state.hyper["lr"]), 3)
        0.497
    """

    method: AbstractHyperGradient
    optim: optax.GradientTransformation
    domain: PyTree
    scale: Array | None

    def __init__(
        self,
        method: AbstractHyperGradient = REVERSE,
        optim: optax.GradientTransformation = ADAM,
        domain: PyTree = Reals(),
    ) -> None:
        self.method = method
        self.optim = optim
        self.domain = domain
        self.scale = None
        if not isinstance(self.method, AbstractHyperGradient):
            raise TypeError(f"method is {method!r}, but it must be one of rfho.hyper_gradients")
        if not isinstance(self.optim, optax.GradientTransformation):
            raise TypeError(
                f"optim is {optim!r}, but it must be an Optax optimiser: write optax.adam(0.01)"
            )

    def scaled(self, scale: Array | float) -> "Tuner":
        """The same, with outer updates multiplied by ``scale``."""
        where = lambda tuner: tuner.scale  # noqa: E731
        return eqx.tree_at(where, self, jnp.asarray(scale), is_leaf=lambda leaf: leaf is None)

    def init(self, problem: Problem, hyper: Hyper, *, members: int = 1) -> TunerState:
        """The state before the first outer step.

        Args:
            problem: what is tuned.
            hyper: λ_0.
            members: how many such states will be stepped side by side, for what memory is needed.

        Raises:
            TypeError, ValueError: hyperparameters fit neither problem nor domain; the message says which.
            MemoryError: an estimate would not fit; the message says what does.
        """
        return self.begin(problem, hyper, members=members, reserves=False)[0]

    def begin(
        self, problem: Problem, hyper: Hyper, *, members: int = 1, reserves: bool = True
    ) -> tuple[TunerState, Reserved]:
        """The same, and the memory that `steps` takes, all made by one program."""
        space = Space.of(self.domain, hyper)
        free, rest = space.split(hyper)
        free = tree.as_hyper(free)
        moment = problem.at(0, rest)
        begun = beginning(
            self.method, self.optim, space, moment, free, members=members, reserves=reserves
        )
        zero, fine = tree.known(0, np.int32), tree.known(True, np.bool_)
        state = TunerState(free, rest, space, begun.slots, begun.carry, zero, fine)
        return state, Reserved(begun.memory)

    def step(self, problem: Problem, state: TunerState) -> tuple[TunerState, Estimate]:
        """One estimate, one update, one projection; pure and traceable, and compiled when called eagerly."""
        step = _driven_step if self.method.driven_from_python else _step
        return step(self, problem, state)

    def steps(
        self, problem: Problem, state: TunerState, reserved: Reserved | None = None
    ) -> Generator[tuple[TunerState, Estimate]]:
        """`step` again and again, without end, in memory that is reserved once: by `begin`, or here.

        The states that it yields are yours to keep; the estimates' arrays too.
        """
        memory = _reserve(self, problem, state) if reserved is None else reserved.memory
        while True:
            if memory is None:
                state, estimate = self.step(problem, state)
            else:
                state, estimate, memory = _step_in_place((self, problem, state), memory)
            yield state, estimate

    def conclude(self, problem: Problem, state: TunerState) -> tuple[PyTree, Params]:
        """The objective and the trained parameters with which a run that ends here ends."""
        conclude = _conclude if self.method.driven_from_python else _conclude_compiled
        return conclude(self, problem, state)


def _pure_step(
    tuner: Tuner, problem: AbstractMoment, state: TunerState
) -> tuple[TunerState, Estimate]:
    moment = problem.at(state.step, state.rest)
    estimate, carry = tuner.method.estimate(moment, state.free, state.carry)
    return _updated(tuner, moment, state, estimate=estimate, carry=carry)


def _updated(
    tuner: Tuner, moment: Moment, state: TunerState, *, estimate: Estimate, carry: PyTree
) -> tuple[TunerState, Estimate]:
    space, scale, chart = state.space, tuner.scale, state.space.chart(state.free)
    gradient = space.pull(chart, estimate.hypergradient)
    optim = optax.with_extra_args_support(tuner.optim)
    updates, slots = optim.update(
        gradient, state.slots, chart, **_extra(tuner, moment, state, estimate, gradient)
    )
    if scale is not None:
        updates = jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, updates)
    free = space.project(space.unchart(optax.apply_updates(chart, updates)))
    finite = state.finite & _all_finite((estimate.value, estimate.hypergradient, free))
    after = state._replace(free=free, slots=slots, carry=carry, step=state.step + 1, finite=finite)
    # What training ends in stays on the device only for wrappers of methods.
    return after, estimate._replace(aux=estimate.aux._replace(state=None))


def _extra(
    tuner: Tuner, moment: Moment, state: TunerState, estimate: Estimate, gradient: PyTree
) -> dict[str, Any]:
    """What optimisers may ask for: the error of the gradient; f, its gradient, and f elsewhere."""
    extra: dict[str, Any] = {}
    if isinstance(tuner.optim, Certain) and (size := estimate.error) is not None:
        each = jax.tree.map(lambda leaf: jnp.full_like(leaf, size), estimate.hypergradient)
        error = state.space.pull(state.space.chart(state.free), each)
        extra["error"] = jax.tree.map(jnp.abs, error)
    leaves = jax.tree.leaves(estimate.value)
    if len(leaves) != 1:
        return extra
    value_fn = _objective_of_chart(tuner.method, moment, state)
    return extra | {"value": leaves[0], "grad": gradient, "value_fn": value_fn}


def _objective_of_chart(
    method: AbstractHyperGradient, moment: Moment, state: TunerState
) -> Callable[[PyTree], Array]:
    """f as a function of the chart, whose derivative is the method's own hypergradient."""

    def both(chart: PyTree) -> tuple[Array, PyTree]:
        free = state.space.unchart(chart)
        estimate, _ = method.estimate(moment, free, method.init(moment, free))
        (value,) = jax.tree.leaves(estimate.value)
        return value, state.space.pull(chart, estimate.hypergradient)

    @jax.custom_vjp
    def value_of(chart: PyTree) -> Array:
        return both(chart)[0]

    value_of.defvjp(both, lambda gradient, factor: (tree.scale(factor, gradient),))
    return value_of


def _all_finite(values: PyTree) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(tree.inexact(values))
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()


_step = begun(_pure_step)


@eqx.filter_jit
def _updated_compiled(
    tuner: Tuner, moment: Moment, state: TunerState, estimate: Estimate, carry: PyTree
) -> tuple[TunerState, Estimate]:
    return _updated(tuner, moment, state, estimate=estimate, carry=carry)


def _driven_step(tuner: Tuner, problem: Problem, state: TunerState) -> tuple[TunerState, Estimate]:
    moment = _moment(problem, state)
    estimate, carry = tuner.method.estimate(moment, state.free, state.carry)
    return _updated_compiled(tuner, moment, state, estimate, carry)


def _moment(problem: Problem, state: TunerState) -> Moment:
    draws = any(isinstance(data, Fresh) for data in (problem.train, problem.valid))
    return (_moment_compiled if draws else _moment_of)(problem, state)


def _moment_of(problem: Problem, state: TunerState) -> Moment:
    return problem.at(state.step, state.rest)


_moment_compiled = eqx.filter_jit(_moment_of)


@begun_in_place
def _step_in_place(
    given: tuple[Tuner, Problem, TunerState], memory: PyTree
) -> tuple[TunerState, Estimate, PyTree]:
    tuner, problem, state = given
    after, estimate = _pure_step(tuner, problem, state._replace(carry=memory))
    return after._replace(carry=state.carry), estimate, after.carry


def _reserve(tuner: Tuner, problem: Problem, state: TunerState) -> PyTree:
    # Over several devices the program lays its tape out itself: what is reserved would lie on one of them.
    one_by_one = tuner.method.driven_from_python or is_spread((problem, state))
    return None if one_by_one else _reserved(tuner, problem, state)


@eqx.filter_jit
def _reserved(tuner: Tuner, problem: Problem, state: TunerState) -> PyTree:
    return tuner.method.reserve(problem.at(state.step, state.rest), state.free)


def _conclude(tuner: Tuner, problem: Problem, state: TunerState) -> tuple[PyTree, Params]:
    return tuner.method.conclude(problem.at(state.step, state.rest), state.free, state.carry)


_conclude_compiled = begun(_conclude)
