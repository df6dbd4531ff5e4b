r"""Products with one large factor are taken together.

Beside X w, a hypergradient needs X v: of every product with the data its tangent, or one tangent for each
direction. Where X is large and the others are thin, as in a linear model of many examples, reading X
takes most of the time, and one product

.. math:: X\,[w, v_1, \dots, v_m] = [X w, X v_1, \dots, X v_m]

takes little more of it than X w alone. Compilers do not do that. `together` finds such products in what
a function computes, whatever the model, and leaves all else as it is.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, Literal, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from rfho.typing import PyTree

LARGE = 8
"""From how many times the size of the thin factor and the result a factor is large."""


def together(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """``function``, with products that share a large factor as one product; equal up to rounding.

    Cost:
        None when it runs. What it computes in loops, branches and a `jax.jit` within is left alone.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((100, 50))
        >>> from rfho._programs.shared_products import together
        >>> both = together(lambda v, w: (x @ v, x @ w))
        >>> str(jax.make_jaxpr(both)(jnp.ones((50, 1)), jnp.ones((50, 1)))).count("dot_general")
        1
    """

    def run(*arguments: PyTree) -> PyTree:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        # What nobody uses is not to be computed for the sake of a neighbour.
        jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
        variables = (*jaxpr.constvars, *jaxpr.invars)
        known = zip(variables, (*closed.consts, *jax.tree.leaves(arguments)), strict=True)
        values = _evaluated(jaxpr, _grouped(jaxpr.eqns), dict(known))
        results = [_read(values, atom) for atom in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return run


class _Node(NamedTuple):
    """What is computed at once: one equation of a jaxpr, or several products.

    Attributes:
        equations: of one kind if there are several.
        thin: of a product, which of its operands is not the large factor.
    """

    equations: list[Any]
    thin: int = 0

    @property
    def inputs(self) -> list[Any]:
        """The variables that it reads."""
        atoms = (atom for equation in self.equations for atom in equation.invars)
        return [atom for atom in atoms if not isinstance(atom, Literal)]

    @property
    def outputs(self) -> list[Any]:
        """The variables that it makes."""
        return [variable for equation in self.equations for variable in equation.outvars]


def _grouped(equations: Iterable[Any]) -> list[_Node]:
    """Each equation in a node of its own, products with one large factor in a common one."""
    nodes: list[_Node] = []
    alike: dict[Any, list[_Node]] = {}
    for equation in equations:
        thin = _thin_operand(equation)
        single = _Node([equation], thin or 0)
        same = [] if thin is None else alike.setdefault(_kind(equation, thin), [])
        node = next((node for node in same if _independent(nodes, node, single)), None)
        if node is None:
            nodes.append(single)
            same.append(single)
        else:
            node.equations.append(equation)
    return nodes


def _thin_operand(equation: Any) -> int | None:
    """Which operand of a product X w or w X is the thin one, if the other is large."""
    if equation.primitive.name != "dot_general":
        return None
    contracted, batch = equation.params["dimension_numbers"]
    left, right, result = (atom.aval.size for atom in (*equation.invars, equation.outvars[0]))
    thin = 1 if left >= right else 0
    is_large = max(left, right) >= LARGE * (min(left, right) + result)
    has_columns = equation.invars[thin].aval.ndim > len(contracted[thin])
    in_variable = not isinstance(equation.invars[1 - thin], Literal)
    return thin if is_large and has_columns and in_variable and not any(batch) else None


def _kind(equation: Any, thin: int) -> Any:
    """What products have in common that can be taken together."""
    factor, other = equation.invars[1 - thin], equation.invars[thin].aval
    return factor, thin, other.shape, other.dtype, str(equation.params)


def _independent(nodes: list[_Node], one: _Node, other: _Node) -> bool:
    """Whether neither needs the other, through nodes that are formed already."""
    needed_by = lambda node: _behind(nodes, node.inputs)  # noqa: E731
    makes = lambda node: {id(variable) for variable in node.outputs}  # noqa: E731
    return not (makes(one) & needed_by(other) or makes(other) & needed_by(one))


def _behind(nodes: list[_Node], variables: list[Any]) -> set[int]:
    """The ids of all variables that are needed for some, these included."""
    maker = {id(variable): node for node in nodes for variable in node.outputs}
    found, open_ = set[int](), [*variables]
    while open_:
        variable = open_.pop()
        if id(variable) not in found:
            found.add(id(variable))
            node = maker.get(id(variable))
            if node is not None:
                found.update(map(id, node.outputs))
                open_ += node.inputs
    return found


def _in_order(nodes: list[_Node], known: set[Any]) -> Iterator[_Node]:
    """The nodes, each as soon as its inputs are known."""
    waiting = nodes
    while waiting:
        later: list[_Node] = []
        for node in waiting:
            if known.issuperset(node.inputs):
                known.update(node.outputs)
                yield node
            else:
                later.append(node)
        waiting = later


def _evaluated(jaxpr: Jaxpr, nodes: list[_Node], values: dict[Any, Any]) -> dict[Any, Any]:
    """The values of all variables."""
    in_order = _in_order(nodes, set(values))
    for several, stretch in itertools.groupby(in_order, lambda node: len(node.equations) > 1):
        if several:
            for node in stretch:
                values |= zip(node.outputs, _joined(node, values), strict=True)
        else:
            _evaluate(jaxpr, [node.equations[0] for node in stretch], values)
    return values


def _evaluate(jaxpr: Jaxpr, equations: list[Any], values: dict[Any, Any]) -> None:
    """Adds what the equations of a stretch of ``jaxpr`` make of ``values``."""
    whole = _Node(equations)
    outputs = [variable for variable in whole.outputs if not isinstance(variable, DropVar)]
    inputs = [*dict.fromkeys(variable for variable in whole.inputs if variable in values)]
    part = jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=equations)
    results = jaxpr_as_fun(ClosedJaxpr(part, ()))(*(values[variable] for variable in inputs))
    values |= zip(outputs, results, strict=True)


def _joined(node: _Node, values: dict[Any, Any]) -> Sequence[Any]:
    """X [w, v, ...], cut into its parts."""
    first, thin = node.equations[0], node.thin
    contracted = first.params["dimension_numbers"][0][thin]
    free = [axis for axis in range(first.invars[thin].aval.ndim) if axis not in contracted]
    columns = [_read(values, equation.invars[thin]) for equation in node.equations]
    joined, factor = jnp.concatenate(columns, axis=free[-1]), values[first.invars[1 - thin]]
    operands = (factor, joined) if thin == 1 else (joined, factor)
    result = first.primitive.bind(*operands, **first.params)
    # A result has the free axes of its left operand, then those of its right one.
    axis = result.ndim - 1 if thin == 1 else len(free) - 1
    return jnp.split(result, len(columns), axis=axis)


def _read(values: dict[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]
