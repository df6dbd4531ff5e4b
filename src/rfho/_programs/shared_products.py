r"""Products with one large factor are taken together.

Beside X w, a hypergradient needs X v: of every product with the data its tangent, or one tangent for each
direction. Where X is large and the others are thin, as in a linear model of many examples, reading X
takes most of the time, and one product

.. math:: X\,[w, v_1, \dots, v_m] = [X w, X v_1, \dots, X v_m]

takes little more of it than X w alone. Compilers do not do that. `SharedProducts` finds such products in
what a function computes, whatever the model. A program without two of them is left as it was traced.

Which products may be joined follows from their rank, the number of such products on the longest way to
it: of two with one rank neither needs the other, and no way leads from a rank back to it. So one look at
each equation is enough.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rfho._programs.liveness import without_dead_code
from rfho._programs.walk import (
    Equation,
    Program,
    aval_of,
    bind,
    extend,
    is_literal,
    mere_call,
    read,
    start,
    trace,
)
from rfho.typing import PyTree


class SharedProducts(eqx.Module):
    """Which products are taken together.

    Args:
        large: from how many times the size of the thin factor and the result a factor is large.
        budget: the most equations of a program that is changed; a longer one is left alone.

    Cost:
        None when it runs. When a function is traced, one look at each of its equations. What it computes in
        loops and branches is left alone.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((100, 50))
        >>> from rfho._programs.shared_products import SharedProducts
        >>> both = SharedProducts()(lambda v, w: (x @ v, x @ w))
        >>> str(jax.make_jaxpr(both)(jnp.ones((50, 1)), jnp.ones((50, 1)))).count("dot_general")
        1
    """

    large: int = eqx.field(static=True, default=8)
    budget: int = eqx.field(static=True, default=10_000)

    def __call__(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """``function``, with products that share a large factor as one product; equal up to rounding."""
        # One function for both, so that it is traced once.
        as_traced = jax.jit(lambda *args: function(*args), inline=True)

        def run(*arguments: PyTree) -> PyTree:
            program, shape = trace(as_traced, *arguments)
            if not self._may_gain(program):
                return as_traced(*arguments)
            # What nobody uses is not to be computed for the sake of a neighbour.
            results = _evaluated(without_dead_code(program), jax.tree.leaves(arguments), self.large)
            return jax.tree.unflatten(jax.tree.structure(shape), results)

        return run

    def _may_gain(self, program: Program) -> bool:
        within = len(program.jaxpr.eqns) <= self.budget and not program.jaxpr.effects
        if not within:
            return False
        inner = (mere_call(equation) for equation in program.jaxpr.eqns)
        gains = (program is not None and self._may_gain(program) for program in inner)
        return bool(_repeated(program, self.large)) or any(gains)


class _Kind(NamedTuple):
    """What products have in common that can be taken together: a large factor and a form.

    Attributes:
        factor: the variable of the large one.
        thin: which operand is the other.
        form: shape and dtype of the thin one, and parameters of the product.
    """

    factor: Any
    thin: int
    form: Any


def _repeated(program: Program, large: int) -> set[_Kind]:
    """The kinds of which there are several products."""
    counted = Counter(_kind(equation, large) for equation in program.jaxpr.eqns)
    return {kind for kind, count in counted.items() if kind is not None and count > 1}


def _kind(equation: Equation, large: int) -> _Kind | None:
    """The kind of a product X w or w X, if X is large."""
    if equation.primitive.name != "dot_general":
        return None
    contracted, batch = equation.params["dimension_numbers"]
    left, right, result = (aval_of(atom).size for atom in (*equation.invars, *equation.outvars))
    thin = 1 if left >= right else 0
    factor, other = equation.invars[1 - thin], aval_of(equation.invars[thin])
    is_large = max(left, right) >= large * (min(left, right) + result)
    has_columns = other.ndim > len(contracted[thin])
    if any(batch) or is_literal(factor) or not (is_large and has_columns):
        return None
    return _Kind(factor, thin, (other.shape, other.dtype, *equation.params.items()))


class _Ranked(NamedTuple):
    """An equation and the number of repeated products on the longest way to it.

    Attributes:
        kind: of a repeated product; None of anything else.
    """

    rank: int
    kind: _Kind | None
    equation: Equation


def _ranked(program: Program, large: int) -> Iterator[_Ranked]:
    repeated, ranks = _repeated(program, large), dict[Any, int]()
    for equation in program.jaxpr.eqns:
        operands = [atom for atom in equation.invars if not is_literal(atom)]
        rank = max((ranks.get(atom, 0) for atom in operands), default=0)
        kind = _kind(equation, large)
        kind = kind if kind in repeated else None
        yield _Ranked(rank, kind, equation)
        ranks.update(dict.fromkeys(equation.outvars, rank + (kind is not None)))


def _evaluated(program: Program, arguments: Sequence[Any], large: int) -> list[Any]:
    """The results of a program: rank by rank, in each the products last and together."""

    def rule(equation: Equation, operands: Sequence[Any]) -> Sequence[Any]:
        inner = mere_call(equation)
        return bind(equation, operands) if inner is None else _evaluated(inner, operands, large)

    values = start(program, arguments)
    by_turn = lambda ranked: (ranked.rank, ranked.kind is not None)  # noqa: E731
    in_turn = sorted(_ranked(program, large), key=by_turn)
    for _, turn in itertools.groupby(in_turn, by_turn):
        together: dict[_Kind | None, list[Equation]] = {}
        for _, kind, equation in turn:
            together.setdefault(kind, []).append(equation)
        for kind, equations in together.items():
            if kind is not None and len(equations) > 1:
                outputs = [equation.outvars[0] for equation in equations]
                values.update(zip(outputs, _joined(kind, equations, values), strict=True))
            else:
                extend(values, equations, rule)
    return [read(values, atom) for atom in program.jaxpr.outvars]


def _joined(kind: _Kind, equations: list[Equation], values: dict[Any, Any]) -> Sequence[Any]:
    """X [w, v, ...], cut into its parts."""
    first, thin = equations[0], kind.thin
    contracted = first.params["dimension_numbers"][0][thin]
    free = [axis for axis in range(aval_of(first.invars[thin]).ndim) if axis not in contracted]
    operand_of = [read(values, equation.invars[thin]) for equation in equations]
    # A gradient and its derivative both multiply by w: that product is taken once.
    columns = list({id(operand): operand for operand in operand_of}.values())
    joined, factor = jnp.concatenate(columns, axis=free[-1]), values[kind.factor]
    operands = (factor, joined) if thin == 1 else (joined, factor)
    result = first.primitive.bind(*operands, **first.params)
    # A result has the free axes of its left operand, then those of its right one.
    axis = result.ndim - 1 if thin == 1 else len(free) - 1
    parts = dict(zip(map(id, columns), jnp.split(result, len(columns), axis=axis), strict=True))
    return [parts[id(operand)] for operand in operand_of]
