"""How many queries go back at a time, and what that takes: stated, and refused, before anything runs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfho._programs import trees as tree
from rfho._programs.compiled import memory_of
from rfho.attribution.sweep import Asked, blank
from rfho.memory import AbstractCheckpoint, Span
from rfho.memory.device import free_memory

_CACHE = 8_000_000
"""Bytes of adjoints that a core's share of the caches holds: beyond it more at a time is not faster."""

_LEAST = 4
"""Queries that share the part of a step which does not depend on them, where adjoints outgrow every cache."""


class Plan(NamedTuple):
    """What an influence will take.

    Attributes:
        queries: how many there are.
        chunk: how many go back at a time.
        memory: bytes beside the problem's own arrays, as predicted from shapes.
    """

    queries: int
    chunk: int
    memory: int


def planned(asked: Asked, *, checkpoint: AbstractCheckpoint, chunk: int | None) -> Plan:
    """The plan for ``chunk`` queries at a time, or for as many as are fastest and fit.

    Raises:
        MemoryError: not even that fits; the message says what would.
    """
    state = jax.eval_shape(asked.problem.init, asked.hyper)
    queries = jax.eval_shape(asked.answers, state).shape[0]
    size = max(1, tree.nbytes(jax.eval_shape(tree.inexact, state)))
    cached = max(_LEAST, _CACHE // size) if jax.default_backend() == "cpu" else queries
    count, free = min(queries, cached if chunk is None else chunk), free_memory()
    plan = Plan(queries, count, _memory(asked, checkpoint, queries, count))
    while plan.memory > free:
        if chunk is not None or plan.chunk == 1:
            raise MemoryError(_too_large(asked, checkpoint, plan, free))
        count = plan.chunk // 2
        plan = Plan(queries, count, _memory(asked, checkpoint, queries, count))
    return plan


def _memory(asked: Asked, checkpoint: AbstractCheckpoint, queries: int, chunk: int) -> int:
    """The tape, the demands of one step back, its cotangents, and the answer."""
    weights = jax.ShapeDtypeStruct((asked.examples.number,), jnp.result_type(float))
    state = jax.eval_shape(asked.problem.init, asked.hyper)
    span = Span(0, asked.horizon)
    chain = asked.chain(jnp.ones(weights.shape), checkpoint.keeps())
    tape = jax.eval_shape(lambda s: checkpoint.blank(chain, s, span), state)
    _, memory = jax.eval_shape(chain.remember, state, _t())
    cotangents = jax.eval_shape(lambda s: blank(s, jnp.ones(weights.shape), chunk), state)
    step = memory_of(chain.pull_back, cotangents, state, memory, _t())
    answer = 2 * asked.examples.number * (queries + chunk) * jnp.dtype(weights.dtype).itemsize
    states = 3 * tree.nbytes(state)
    return tree.nbytes(tape) + step + tree.nbytes(cotangents) + answer + states


def _too_large(asked: Asked, checkpoint: AbstractCheckpoint, plan: Plan, free: int) -> str:
    one = _memory(asked, checkpoint, plan.queries, 1)
    remedy = (
        "chunk=1 fits"
        if one <= free
        else "not even one at a time fits: keep less of the trajectory, checkpoint=rfho.Binomial(10), or ask less"
    )
    return (
        f"{plan.chunk} of {plan.queries} queries at a time need {plan.memory / 1e9:.3g} GB under {checkpoint}, but "
        f"{free / 1e9:.3g} GB are free: {remedy}"
    )


def _t() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32)
