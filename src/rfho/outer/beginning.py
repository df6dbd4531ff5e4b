"""What a run begins with, by one program: the method's carry, the outer optimiser's slots, the memory reserved."""

from typing import NamedTuple

import equinox as eqx
import optax
from jaxtyping import Array, Bool

from rfho._programs.tracing import any_traced
from rfho.domains.space import Space
from rfho.hyper_gradients import AbstractHyperGradient
from rfho.hyper_gradients.room import refuse_what_cannot_fit
from rfho.memory.shards import is_spread
from rfho.problem.moment import Moment
from rfho.problem.validate import validate
from rfho.typing import Hyper, PyTree


class Reserved(NamedTuple):
    """Memory that one outer step hands to the next.

    Attributes:
        memory: what `AbstractHyperGradient.reserve` gives, None if the method has no use for any.
    """

    memory: PyTree


class Beginning(NamedTuple):
    """What is there before the first outer step.

    Attributes:
        carry: the method's.
        slots: the outer optimiser's.
        memory: what `AbstractHyperGradient.reserve` gives; None where it is not asked for.
        inside: what `Space.contains` says.
    """

    carry: PyTree
    slots: PyTree
    memory: PyTree
    inside: list[Bool[Array, ""]]


def beginning(
    method: AbstractHyperGradient,
    optim: optax.GradientTransformation,
    space: Space,
    moment: Moment,
    free: Hyper,
    *,
    members: int,
    reserves: bool,
) -> Beginning:
    """Once problem, λ and method are known to fit each other: one program, or a part of that around it.

    Args:
        method: how hypergradients are computed.
        optim: the outer optimiser.
        space: where the learned leaves may lie.
        moment: the problem at outer step 0.
        free: the learned leaves of λ.
        members: how many are stepped side by side, for what memory is needed.
        reserves: whether the memory for further steps is wanted, too.

    Raises:
        TypeError, ValueError, MemoryError: they do not.
    """
    if any_traced((moment, free)):
        space.check(free)  # of what is known
        return _start(method, optim, space, moment, free, members, reserves)
    if is_spread((moment, free)):
        # Slots not in a program, whose compiler would lay them out as it likes. And the step's program lays
        # its tape out itself: what is reserved would lie on one of them.
        space.check(free)
        begun = _start_compiled(method, None, space, moment, free, members, False)
        return begun._replace(slots=_slots(optim, space, free))
    space.check_kind(free)
    begun = _start_compiled(method, optim, space, moment, free, members, reserves)
    space.check_inside(free, begun.inside)
    return begun


def _start(
    method: AbstractHyperGradient,
    optim: optax.GradientTransformation | None,
    space: Space,
    moment: Moment,
    free: Hyper,
    members: int,
    reserves: bool,
) -> Beginning:
    # Traced once per program, and so is all that is looked at here.
    validate(moment, free, reaches_start=method.reaches_start(moment))
    refuse_what_cannot_fit(moment, free, method, members=members)
    carry = method.init(moment, free)
    slots = None if optim is None else _slots(optim, space, free)
    memory = method.reserve(moment, free) if reserves else None
    return Beginning(carry, slots, memory, space.contains(free))


_start_compiled = eqx.filter_jit(_start)


def _slots(optim: optax.GradientTransformation, space: Space, free: Hyper) -> PyTree:
    return optim.init(space.chart(free))
