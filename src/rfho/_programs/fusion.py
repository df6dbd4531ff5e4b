"""What a compiler makes of a traced function: the kernels it runs, and the values they write to memory.

A jaxpr names every intermediate value, but compiled code holds few of them. Elementwise operations
are fused into the kernel that uses their result; reshapes and transpositions cost nothing; what
nobody uses is not computed. `kernels_of` applies these three rules and no others, without
compiling anything.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from rfho._programs.walk import Equation, Program, called, children, is_literal, trace
from rfho.typing import PyTree

_VIEWS = ("reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p", "stop_gradient")
_LOOPS = ("scan", "while", "cond")
_WRITERS = (
    *("dot_general", "conv_general_dilated", "ragged_dot", "gather", "dynamic_update_slice"),
    *("concatenate", "sort", "top_k", "cholesky", "lu", "qr", "triangular_solve", "linear_solve"),
    *("random_bits", "random_wrap", "random_unwrap", "random_fold_in", "threefry2x32"),
    *_LOOPS,
)
_REDUCTIONS = ("reduce", "cum", "arg")

# Elementary operations for one element, in units of an addition.
_EFFORT = {
    **dict.fromkeys(("broadcast_in_dim", "iota", "convert_element_type", "slice"), 0),
    **dict.fromkeys(("div", "rem"), 4),
    **dict.fromkeys(("sqrt", "rsqrt"), 5),
    **dict.fromkeys(("exp", "log", "exp2", "log1p", "expm1"), 8),
    **dict.fromkeys(("tanh", "logistic", "sin", "cos", "erf", "erf_inv", "atan2"), 12),
    **dict.fromkeys(("pow", "lgamma", "digamma", "random_bits", "threefry2x32"), 20),
}
_EXPENSIVE = 5
"""Effort from which a value that several kernels use is written rather than computed again."""

LITERAL = 0
"""The name of all constants that are part of the code."""


class Operation(NamedTuple):
    """One equation, its values by number.

    Attributes:
        name: of the primitive.
        inputs: the values it reads; `LITERAL` for constants.
        outputs: those it makes.
        equation: itself.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    equation: Equation


class Kernel(NamedTuple):
    """One pass over memory.

    Attributes:
        operation: what it is there for.
        reads: the values in memory that it uses.
        writes: those it leaves there.
        effort: elementary operations outside of matrix products, fused ones included.
    """

    operation: Operation
    reads: frozenset[int]
    writes: tuple[int, ...]
    effort: int


class Graph(NamedTuple):
    """A traced function without its calls and its dead code.

    Attributes:
        operations: in order.
        arguments: the values that are passed in.
        constants: the arrays over which the function closes.
        results: the values to be returned.
        shapes: an abstract array for each value.
    """

    operations: list[Operation]
    arguments: frozenset[int]
    constants: frozenset[int]
    results: tuple[int, ...]
    shapes: dict[int, Any]

    def size(self, value: int) -> int:
        """Elements of a value."""
        return int(np.prod(getattr(self.shapes.get(value), "shape", (0,))))

    def nbytes(self, value: int) -> int:
        """Bytes of a value."""
        return self.size(value) * itemsize(self.shapes.get(value))


def itemsize(shape: Any) -> int:
    """Bytes of one element of an abstract array."""
    return getattr(getattr(shape, "dtype", None), "itemsize", 0)


def graph_of(function: Callable[..., PyTree], *arguments: PyTree) -> Graph:
    """The graph of ``function``; ``arguments`` may be abstract."""
    return graph_of_program(trace(function, *arguments)[0])


def graph_of_program(program: Program) -> Graph:
    """The graph of a traced function."""
    shapes: dict[int, Any] = {}
    operations: list[Operation] = []

    def named(variable: Any) -> int:
        shapes[len(shapes) + 1] = variable.aval
        return len(shapes)

    def walk(program: Program, inputs: tuple[int, ...]) -> tuple[int, ...]:
        jaxpr = program.jaxpr
        names = dict(zip(jaxpr.invars, inputs, strict=True))
        names |= {variable: named(variable) for variable in jaxpr.constvars}
        constants.update(names[variable] for variable in jaxpr.constvars)
        read = lambda atom: LITERAL if is_literal(atom) else names[atom]  # noqa: E731
        for equation in jaxpr.eqns:
            inputs = tuple(read(atom) for atom in equation.invars)
            inner = called(equation)
            if inner is None:
                outputs = tuple(named(variable) for variable in equation.outvars)
                name = equation.primitive.name
                operations.append(Operation(name, inputs, outputs, equation))
            else:
                outputs = walk(inner, inputs)
            names |= zip(equation.outvars, outputs, strict=True)
        return tuple(read(atom) for atom in jaxpr.outvars)

    constants: set[int] = set()
    arguments = tuple(named(variable) for variable in program.jaxpr.invars)
    results = walk(program, arguments)
    alive = _alive(operations, results)
    return Graph(alive, frozenset(arguments), frozenset(constants), results, shapes)


def kernels_of(graph: Graph) -> tuple[list[Kernel], frozenset[int]]:
    """The kernels that compute the results, in order, and the values in memory that hold these."""
    maker = {value: op for op in graph.operations for value in op.outputs}
    users: dict[int, list[Operation]] = {}
    for op in graph.operations:
        for value in {*op.inputs} - {LITERAL}:
            users.setdefault(value, []).append(op)
    fusion = _Fusion(graph, maker, users, written=set(), known={})
    fusion.written.update(v for op in graph.operations if fusion.writes(op) for v in op.outputs)
    kernels = [fusion.kernel(op) for op in graph.operations if op.outputs[0] in fusion.written]
    held = frozenset[int]().union(*(fusion.behind(value)[0] for value in graph.results))
    return kernels, held


class _Fusion(NamedTuple):
    """Which values are written, and what stands behind those that are not."""

    graph: Graph
    maker: dict[int, Operation]
    users: dict[int, list[Operation]]
    written: set[int]
    known: dict[int, tuple[frozenset[int], frozenset[int]]]

    def kernel(self, op: Operation) -> Kernel:
        reads, fused = self.behind_all(op)
        effort = sum(self.effort(self.maker[value]) for value in fused)
        return Kernel(op, reads, op.outputs, effort + self.effort(op))

    def effort(self, op: Operation) -> int:
        if _writes(op) and op.name not in _EFFORT:
            return 0
        elements = op.inputs[0] if op.name.startswith(_REDUCTIONS) else op.outputs[0]
        return _EFFORT.get(op.name, 1) * self.graph.size(elements)

    def writes(self, op: Operation) -> bool:
        if op.name in _VIEWS:
            return False
        if _writes(op) or op.name.startswith(_REDUCTIONS):
            return True
        users = list(self.users_of(op.outputs[0]))
        returned = any(user is None for user in users)
        needs_memory = any(user is not None and _writes(user) for user in users)
        costly = _EFFORT.get(op.name, 1) >= _EXPENSIVE and len(users) > 1
        return returned or needs_memory or costly

    def users_of(self, value: int) -> Iterator[Operation | None]:
        """The operations that use a value, through views; None where it is returned."""
        if value in self.graph.results:
            yield None
        for op in self.users.get(value, []):
            if op.name in _VIEWS:
                yield from self.users_of(op.outputs[0])
            else:
                yield op

    def behind(self, value: int) -> tuple[frozenset[int], frozenset[int]]:
        """What is in memory behind a value, and what is computed on the way from there to it."""
        if value == LITERAL:
            return frozenset(), frozenset()
        if value in self.written or value not in self.maker:
            return frozenset([value]), frozenset()
        if value not in self.known:
            op = self.maker[value]
            reads, fused = self.behind_all(op)
            self.known[value] = reads, fused | ({value} if op.name not in _VIEWS else set())
        return self.known[value]

    def behind_all(self, op: Operation) -> tuple[frozenset[int], frozenset[int]]:
        pairs = [self.behind(value) for value in op.inputs]
        empty = frozenset[int]()
        return empty.union(*(p[0] for p in pairs)), empty.union(*(p[1] for p in pairs))


def inner_programs(operation: Operation) -> list[Program]:
    """The bodies of a loop or a branch; empty for anything else."""
    return children(operation.equation) if operation.name in _LOOPS else []


def _writes(op: Operation) -> bool:
    return op.name in _WRITERS or op.name.startswith("scatter") or len(op.outputs) != 1


def _alive(operations: list[Operation], results: tuple[int, ...]) -> list[Operation]:
    needed, alive = {*results}, list[Operation]()
    for op in reversed(operations):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            alive.append(op)
    return alive[::-1]
