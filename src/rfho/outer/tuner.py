"""The outer loop as a pure pair of functions, for those with a loop of their own.

    u = chart(λ)    u ← u + update(∂unchart(u)ᵀ g)    λ ← project(unchart(u))

Projection after the step is that of arXiv 1703.01785; a chart changes what the outer step size
means.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Int

from rfho._programs.tracing import is_traced
from rfho._tree import path_of
from rfho.domains import AbstractDomain, Fixed, Reals, domain_tree
from rfho.hyper_gradients import AbstractHyperGradient, Estimate, ReverseHyperGradient
from rfho.problem.problem import Problem
from rfho.problem.validate import validate
from rfho.typing import Hyper, Params, PyTree


class TunerState(NamedTuple):
    """Where an outer loop stands: one pytree, so that jit, vmap and files need no code of their own.

    Attributes:
        hyper: λ_k.
        slots: the outer optimiser's.
        carry: the method's.
        step: k, outer steps done.
    """

    hyper: Hyper
    slots: PyTree
    carry: PyTree
    step: Int[Array, ""]


class Tuner(eqx.Module):
    """One outer loop: a method, an outer optimiser, a domain.

    Args:
        method: how hypergradients are computed; `ReverseHyperGradient` by default.
        optim: any Optax optimiser; Adam with rate 0.01 by default. One rate rarely suits every
            hyperparameter: see `optax.partition`.
        domain: a domain, or a tree prefix of ``hyper`` with domains at its leaves; `Reals` by
            default.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(
        ...     dynamics, lambda w, hyper, batch: (w - 1) ** 2, train=None, valid=None, horizon=1
        ... )
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

    def __init__(
        self,
        method: AbstractHyperGradient | None = None,
        optim: optax.GradientTransformation | None = None,
        domain: PyTree = None,
    ) -> None:
        self.method = ReverseHyperGradient() if method is None else method
        self.optim = optax.adam(0.01) if optim is None else optim
        self.domain = Reals() if domain is None else domain
        if not isinstance(self.method, AbstractHyperGradient):
            raise TypeError(f"method is {method!r}, but it must be one of rfho.hyper_gradients")
        if not isinstance(self.optim, optax.GradientTransformation):
            raise TypeError(
                f"optim is {optim!r}, but it must be an Optax optimiser: write optax.adam(0.01)"
            )

    def init(self, problem: Problem, hyper: Hyper) -> TunerState:
        """The state before the first outer step.

        Raises:
            TypeError, ValueError: hyperparameters fit neither problem nor domain; the message says
                which.
        """
        free, fixed = self.split(hyper)
        free = validate(problem.with_fixed(fixed).at(0), free)
        self._check_domain(free)
        slots = self.optim.init(self._leafwise(lambda domain, leaf: domain.chart(leaf), free))
        carry = _init_carry(self.method, problem.with_fixed(fixed).at(0), free)
        return TunerState(eqx.combine(free, fixed), slots, carry, jnp.zeros((), jnp.int32))

    def step(self, problem: Problem, state: TunerState) -> tuple[TunerState, Estimate]:
        """One estimate, one update, one projection; pure and traceable, and compiled when called eagerly."""
        step = _pure_step if self.method.driven_from_python else _step
        return step(self, problem, state)

    def steps(self, problem: Problem, state: TunerState) -> Iterator[tuple[TunerState, Estimate]]:
        """`step` again and again, without end, in memory that is reserved once.

        The states that it yields are yours to keep; the estimates' arrays too.
        """
        memory = _reserve(self, problem, state.hyper)
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

    def split(self, hyper: Hyper) -> tuple[Hyper, Hyper]:
        """The leaves to be learned, and those that are `Fixed`, with None in place of the others.

        Raises:
            ValueError: all leaves are fixed, or ``domain`` is no tree prefix of ``hyper``.
        """
        is_free = self._leafwise(lambda domain, leaf: not isinstance(domain, Fixed), hyper)
        free, fixed = eqx.partition(hyper, is_free)
        if not jax.tree.leaves(free):
            raise ValueError("every leaf of hyper is Fixed(), but there must be one to tune")
        return free, jax.tree.map(jnp.asarray, fixed)

    def updated(self, free: Hyper, hypergradient: Hyper, slots: PyTree) -> tuple[Hyper, PyTree]:
        """λ and the outer optimiser's slots after one update and projection."""
        chart = self._leafwise(lambda domain, leaf: domain.chart(leaf), free)
        pull = lambda domain, u, g: jax.vjp(domain.unchart, u)[1](g)[0]  # noqa: E731
        in_chart = self._leafwise(pull, chart, hypergradient)
        updates, slots = self.optim.update(in_chart, slots, chart)
        chart = optax.apply_updates(chart, updates)
        return self._leafwise(lambda domain, u: domain.project(domain.unchart(u)), chart), slots

    def _leafwise(self, function: Callable[..., Any], hyper: Hyper, *others: PyTree) -> PyTree:
        domains = domain_tree(self.domain, hyper)
        return jax.tree.map(function, domains, hyper, *others, is_leaf=_is_domain)

    def _check_domain(self, hyper: Hyper) -> None:
        domains = jax.tree.leaves(domain_tree(self.domain, hyper), is_leaf=_is_domain)
        leaves = jax.tree_util.tree_leaves_with_path(hyper)
        for domain, (path, leaf) in zip(domains, leaves, strict=True):
            if is_traced(leaf):
                continue
            where = path_of(path, "hyper")
            domain.check(leaf, where)
            if not domain.contains(leaf):
                raise ValueError(
                    f"{where} starts outside its domain {domain}: start inside, for example from the "
                    "domain's project(x)"
                )


@eqx.filter_jit
def _init_carry(method: AbstractHyperGradient, problem: Problem, hyper: Hyper) -> PyTree:
    return method.init(problem, hyper)


def _pure_step(tuner: Tuner, problem: Problem, state: TunerState) -> tuple[TunerState, Estimate]:
    free, fixed = tuner.split(state.hyper)
    problem = problem.with_fixed(fixed).at(state.step)
    estimate, carry = tuner.method.estimate(problem, free, state.carry)
    free, slots = tuner.updated(free, estimate.hypergradient, state.slots)
    return TunerState(eqx.combine(free, fixed), slots, carry, state.step + 1), estimate


_step = eqx.filter_jit(_pure_step)


@eqx.filter_jit(donate="all-except-first")
def _step_in_place(
    given: tuple[Tuner, Problem, TunerState], memory: PyTree
) -> tuple[TunerState, Estimate, PyTree]:
    tuner, problem, state = given
    after, estimate = _pure_step(tuner, problem, state._replace(carry=memory))
    return after._replace(carry=state.carry), estimate, after.carry


@eqx.filter_jit
def _reserve(tuner: Tuner, problem: Problem, hyper: Hyper) -> PyTree:
    free, fixed = tuner.split(hyper)
    return tuner.method.reserve(problem.with_fixed(fixed), free)


def _conclude(tuner: Tuner, problem: Problem, state: TunerState) -> tuple[PyTree, Params]:
    free, fixed = tuner.split(state.hyper)
    return tuner.method.conclude(problem.with_fixed(fixed).at(state.step), free, state.carry)


_conclude_compiled = eqx.filter_jit(_conclude)


def _is_domain(node: Any) -> bool:
    return isinstance(node, AbstractDomain)
