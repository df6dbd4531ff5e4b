r"""The influence of every example on many queries, by one run and its way back.

With a seed for each query, :math:`\alpha_T^j = \partial_s E_j`, all adjoints go back through the same steps,

.. math:: g_{ij} = \frac{dE_j}{d\varepsilon_i} = \sum_{t:\, i \in b_t} \alpha_t^j\,
          \frac{\partial\Phi}{\partial\varepsilon_i}, \quad \alpha_{t-1}^j = \alpha_t^j A_t,

so that trajectory, tape and whatever does not depend on the query are shared. A step adds to the rows of
its batch alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rfho._programs import trees as tree
from rfho._programs.liveness import inputs_used
from rfho._programs.shared_products import SharedProducts
from rfho.attribution.dynamics import WeighedDynamics, WeighedHyper
from rfho.attribution.examples import Examples
from rfho.dynamics import Keep
from rfho.dynamics.model import whole_model
from rfho.memory import AbstractCheckpoint, Chain, Span, advance
from rfho.problem.moment import AbstractMoment
from rfho.typing import Batch, Hyper, Params, PyTree, State, Step

Queries = Callable[[Params, Hyper, Batch], Array]
"""``(params, hyper, batch) -> (q,)``: what is asked about a trained model, with the validation data for batch."""


class Asked(eqx.Module):
    """One training run and what is asked about its end.

    Attributes:
        problem: at the outer step whose data are meant.
        hyper: λ, as the problem has it.
        queries: what is asked; None for the problem's objective.
        examples: what is trained on.
        horizon: for how many steps.
    """

    problem: AbstractMoment
    hyper: Hyper
    queries: Queries | None
    examples: Examples
    horizon: int = eqx.field(static=True)

    def on(self, examples: Examples, horizon: int) -> "Asked":
        """The same, trained on other examples for so many steps."""
        return Asked(self.problem, self.hyper, self.queries, examples, horizon)

    def answers(self, state: State) -> Float[Array, " q"]:
        """E_j at ``state``."""
        problem, params = self.problem, self.problem.dynamics.output(state)
        if self.queries is None:
            values = jax.tree.leaves(problem.evaluate(params, self.hyper))
            return jnp.stack(values)
        whole, batch = problem.whole(self.hyper), problem.valid_batch()
        values = jnp.asarray(self.queries(whole_model(params), whole, batch))
        if values.ndim != 1:
            raise TypeError(
                f"queries returned an array of shape {values.shape}, but it must be one number for each query, of "
                "shape (q,): jnp.stack them, or leave out a mean"
            )
        return values

    def chain(self, weights: Float[Array, " n"], keep: Keep) -> Chain:
        """The steps, with cotangents (α of each query, the influence so far, of shape (n, queries))."""
        examples, whole = self.examples, self.problem.whole(self.hyper)
        like = jax.eval_shape(self.problem.init, self.hyper)
        dynamics = WeighedDynamics.of(self.problem.dynamics, like)
        way = dynamics.way(keep)

        def given(t: Step) -> tuple[WeighedHyper, Batch]:
            own = weights if examples.everything else weights[examples.index(t)]
            return WeighedHyper(whole, own), examples.batch(t)

        def pull_back(cotangents: PyTree, state: State, memory: PyTree, t: Step) -> PyTree:
            hyper, batch = given(t)
            adjoints, influence = cotangents
            one = lambda adjoint: way.pull_back(adjoint, state, memory, hyper, batch)  # noqa: E731
            adjoints, by_step = _each(one, adjoints)
            by_weights = by_step.weights.T
            if examples.everything:
                return adjoints, influence + by_weights
            return adjoints, influence.at[examples.index(t)].add(by_weights)

        @functools.cache
        def needed() -> tuple[PyTree, PyTree]:
            _, memory = jax.eval_shape(lambda s: way.remember(s, *given(0)), like)
            cotangents = jax.eval_shape(lambda s: blank(s, weights, 1), like)
            pull = lambda c, entry: pull_back(c, entry[0], entry[1], 0)  # noqa: E731
            _, used = inputs_used(pull, cotangents, (like, memory))
            return eqx.partition((like, memory), used)

        again = way.again
        return Chain(
            lambda state, t: dynamics.step(state, *given(t)),
            lambda state, t: way.remember(state, *given(t)),
            SharedProducts()(pull_back),
            needed,
            again=None if again is None else lambda s, memory, t: again(s, memory, given(t)[0]),
        )


_SMALL = 250_000
"""Bytes of an adjoint up to which several in one product are faster than one after another."""


def _each(pull: Callable[[PyTree], PyTree], adjoints: PyTree) -> PyTree:
    """``pull``, which is linear, of every adjoint."""
    first = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), adjoints)
    alone = jax.tree.leaves(adjoints)[0].shape[0] == 1
    if alone or jax.default_backend() != "cpu" or tree.nbytes(first) <= _SMALL:
        return jax.vmap(pull)(adjoints)
    # A cache holds one large adjoint and what becomes of it, and not several. What none of them needs to be known
    # for is computed once, before.
    _, linear = jax.linearize(pull, first)
    return jax.lax.map(linear, adjoints)


def blank(state: State, weights: Float[Array, " n"], count: int) -> PyTree:
    """The cotangents of ``count`` queries, all 0: adjoints, and the influence of each example."""
    many = lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype)  # noqa: E731
    adjoints = jax.tree.map(many, tree.inexact(state))
    return adjoints, jnp.zeros((weights.shape[0], count), weights.dtype)


class Swept(NamedTuple):
    """What one run and its way back tell.

    Attributes:
        values: E_j, the answers of the trained model.
        influence: dE_j/dε_i, shape (n, q).
    """

    values: Float[Array, " q"]
    influence: Float[Array, "n q"]


def swept(
    asked: Asked, weights: Float[Array, " n"], *, checkpoint: AbstractCheckpoint, chunk: int
) -> Swept:
    """The influence of every example, ``chunk`` queries at a time over one tape."""
    chain = asked.chain(weights, checkpoint.keeps())
    span = Span(0, asked.horizon)
    state = asked.problem.init(asked.hyper)
    tape = checkpoint.blank(chain, state, span)
    final, tape = checkpoint.forward(chain, state, span, tape)
    inside, rest = tree.split(final)
    values, pull = jax.vjp(lambda inside: asked.answers(eqx.combine(inside, rest)), inside)
    number = values.shape[0]

    def some(first: Array) -> Float[Array, "n chunk"]:
        # Past the last query seeds are 0, and so is all that follows from them.
        seeds = jax.nn.one_hot(first + jnp.arange(chunk), number, dtype=values.dtype)
        _, influence = blank(final, weights, chunk)
        # One by one: each goes through all of the validation data.
        (adjoints,) = jax.lax.map(pull, seeds)
        (_, influence), _ = checkpoint.backward(chain, tape, span, (adjoints, influence))
        return influence

    chunks = jax.lax.map(some, jnp.arange(0, number, chunk))
    influence = jnp.moveaxis(chunks, 0, 1).reshape(weights.shape[0], -1)
    return Swept(values, influence[:, :number])


def answered(asked: Asked, weights: Float[Array, " n"]) -> Float[Array, " q"]:
    """What a model answers that is trained with these weights."""
    chain = asked.chain(weights, Keep.STATES)
    return asked.answers(advance(chain, asked.problem.init(asked.hyper), 0, asked.horizon))


def times_drawn(examples: Examples, horizon: int) -> Float[Array, " n"]:
    """How often each example is in a batch."""
    counts = jnp.zeros(examples.number)
    if examples.everything:
        return counts + horizon
    return jax.lax.fori_loop(0, horizon, lambda t, c: c.at[examples.index(t)].add(1), counts)


def reaches(asked: Asked) -> bool:
    """Whether the weights of examples reach a step at all."""
    examples = asked.examples
    whole = asked.problem.whole(asked.hyper)
    state = jax.eval_shape(asked.problem.init, asked.hyper)
    dynamics = WeighedDynamics.of(asked.problem.dynamics, state)
    weights = jnp.ones(examples.size)

    def step(state: State, weights: Any) -> State:
        return dynamics.step(state, WeighedHyper(whole, weights), examples.batch(0))

    _, used = inputs_used(step, state, weights)
    return bool(used)
