"""One training run there and back, with the size of the signal noted at every step.

    α_T = ∂E/∂s_T,    α_{t-1} = α_t A_t,    log ‖α_t‖ and "is it finite" for every leaf and every t

Norms are taken in logarithms, so that a signal of 1e200 is seen in float32 too. All states are kept:
memory O(T) states, whatever the method under diagnosis keeps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from rfho._engines import forward as tangent
from rfho._engines.forward import Pushed
from rfho._engines.reverse import chain_of
from rfho._programs import trees as tree
from rfho.dynamics import Keep
from rfho.problem.moment import AbstractMoment, over_objectives
from rfho.typing import Hyper, PyTree, State


class Held(NamedTuple):
    """What stands before one step, to be looked at more closely.

    Attributes:
        state: s_t.
        cotangents: (α_{t+1}, λ̄), what the step was to pull back.
    """

    state: State
    cotangents: PyTree


class Mended(NamedTuple):
    """In which leaves every NaN and infinity is replaced by zero: what then becomes finite, came from there.

    Attributes:
        state: of s_t, one bool for each inexact leaf.
        back: of α_t and then of λ̄.
    """

    state: Bool[Array, " leaves"]
    back: Bool[Array, " all_leaves"]


class Record(NamedTuple):
    """What was seen; the index t counts states, 0 to T, and leaves are inexact leaves of the state.

    Attributes:
        value: the objectives, shape () or (n,).
        hypergradient: of each objective, stacked if there are several.
        final: s_T.
        state_finite: of s_t.
        adjoint: log ‖α_t‖, of what is finite in it.
        back_finite: of α_t and of λ̄ as it stands there; the λ̄ leaves come last.
        held: at the step that was asked for.
    """

    value: Array
    hypergradient: Hyper
    final: State
    state_finite: Bool[Array, "states leaves"]
    adjoint: Float[Array, "states leaves"]
    back_finite: Bool[Array, "states all_leaves"]
    held: Held


class Pushes(NamedTuple):
    """Forward mode along one direction.

    Attributes:
        value: the objectives.
        derivative: along the direction, of each objective.
        tangent: log ‖z_t‖ of every leaf.
        tangent_finite: of z_t.
    """

    value: Array
    derivative: Array
    tangent: Float[Array, "states leaves"]
    tangent_finite: Bool[Array, "states leaves"]


@eqx.filter_jit
def there_and_back(
    problem: AbstractMoment, hyper: Hyper, hold: Array, mended: Mended | None = None
) -> Record:
    """The run of s_0, …, s_T and of α_T, …, α_0; ``hold`` is the step to be held, -1 for none."""
    chain = chain_of(problem, hyper, Keep.STATES)
    steps = jnp.arange(problem.horizon)
    mend_state = _mending(None if mended is None else mended.state)
    mend_back = _mending(None if mended is None else mended.back)

    def forward(state: State, t: Array) -> tuple[State, tuple[State, Array]]:
        after = chain.step(state, t)
        return mend_state(after), (state, _finite(tree.inexact(after)))

    def back(at: tuple[PyTree, Held], seen: tuple[State, Array]) -> tuple[Any, Any]:
        (cotangents, held), (state, t) = at, seen
        _, memory = chain.remember(state, t)
        before = chain.pull_back(cotangents, state, memory, t)
        held = _where(t == hold, Held(state, cotangents), held)
        return (mend_back(before), held), (_sizes(before[0]), _finite(before))

    start = problem.init(hyper)
    begin = mend_state(start)
    final, (states, finite) = jax.lax.scan(forward, begin, steps)
    reading = problem.read(final, hyper)
    seed = reading.by_state, reading.by_hyper
    ((adjoint, by_hyper), held), (sizes, back_finite) = jax.lax.scan(
        back, (mend_back(seed), Held(begin, seed)), (states, steps), reverse=True
    )
    _, vjp = jax.vjp(lambda h: tree.inexact(problem.init(h)), hyper)
    (by_init,) = over_objectives(problem, vjp)(adjoint)
    return Record(
        value=reading.value,
        hypergradient=tree.add(by_hyper, by_init),
        final=final,
        state_finite=jnp.concatenate([_finite(tree.inexact(start))[None], finite]),
        adjoint=jnp.concatenate([sizes, _sizes(seed[0])[None]]),
        back_finite=jnp.concatenate([back_finite, _finite(seed)[None]]),
        held=held,
    )


@eqx.filter_jit
def pushed_along(problem: AbstractMoment, hyper: Hyper, direction: Hyper) -> Pushes:
    """The run of s_0, …, s_T and of the tangent along one direction."""
    one = jax.tree.map(lambda leaf: leaf[None], direction)

    def forward(pushed: Pushed, t: Array) -> tuple[Pushed, tuple[Array, Array]]:
        pushed = tangent.push(problem, hyper, pushed, directions=one, t=t)
        return pushed, (_sizes(pushed.tangent), _finite(pushed.tangent))

    begin = tangent.start(problem, hyper, one)
    end, (sizes, finite) = jax.lax.scan(forward, begin, jnp.arange(problem.horizon))
    reading, derivative = tangent.read_along(problem, hyper, end, directions=one)
    return Pushes(
        reading.value,
        derivative[..., 0],
        jnp.concatenate([_sizes(begin.tangent)[None], sizes]),
        jnp.concatenate([_finite(begin.tangent)[None], finite]),
    )


def leaf_paths(problem: AbstractMoment, hyper: Hyper) -> list[str]:
    """Paths of the inexact leaves of the state, then of the hyperparameters: the columns of a `Record`."""
    state = jax.eval_shape(problem.init, hyper)
    # eval_shape gives no arrays, of which `tree.inexact` would find the inexact ones.
    named = [
        tree.path_of(path, "state")
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return named + [
        tree.path_of(path, "hyper") for path, _ in jax.tree_util.tree_leaves_with_path(hyper)
    ]


def _sizes(values: PyTree) -> Float[Array, " leaves"]:
    return jnp.stack([_log_norm(leaf) for leaf in jax.tree.leaves(values)])


def _log_norm(leaf: Array) -> Float[Array, ""]:
    leaf = jnp.where(jnp.isfinite(leaf), leaf, 0)
    largest = jnp.max(jnp.abs(leaf), initial=0)
    scaled = leaf / jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(scaled))))
    return (jnp.log(largest) + jnp.log(norm)).astype(jnp.result_type(float))


def _finite(values: PyTree) -> Bool[Array, " leaves"]:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(values)])


def _mending(leaves: Array | None) -> Callable[[PyTree], PyTree]:
    """Puts zeros in the place of what is not finite in these inexact leaves; nothing for None."""
    if leaves is None:
        return lambda values: values

    def mended(values: PyTree) -> PyTree:
        inside, rest = tree.split(values)
        parts, structure = jax.tree.flatten(inside)
        parts = [
            jnp.where(chosen & ~jnp.isfinite(part), jnp.zeros_like(part), part)
            for chosen, part in zip(leaves, parts, strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(structure, parts), rest)

    return mended


def _where(chosen: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), new, old)
