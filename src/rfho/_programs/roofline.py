"""The work of a traced function: what it computes, moves and holds, counted without compiling it.

A kernel takes as long as the slower of its arithmetic and its traffic, and a moment to be started:

    seconds = Σ max(products / P + effort / E, bytes / B) + κ

The roofline model; P, E, B and κ are the `Rates` of a machine. Memory is the largest sum of the
values that are alive between their first kernel and their last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rfho._programs.fusion import (
    Graph,
    Kernel,
    graph_of,
    graph_of_program,
    inner_programs,
    kernels_of,
)
from rfho.typing import PyTree


class Rates(NamedTuple):
    """How fast a machine is; only the ratios of the four matter to what is predicted.

    The defaults are of a CPU with two cores, fitted by ``python -m benchmarks.auto --fit``.

    Attributes:
        products: P, operations of matrix products and convolutions per second.
        effort: E, other elementary operations per second.
        traffic: B, bytes per second.
        start: κ, seconds to start a kernel.
    """

    products: float = 2e11
    effort: float = 3e9
    traffic: float = 5e9
    start: float = 3.5e-7


class Load(NamedTuple):
    """What kernels compute and move.

    Attributes:
        products: operations of matrix products and convolutions, two for each multiplication.
        effort: other elementary operations.
        traffic: bytes read and written.
        times: how often.
    """

    products: int
    effort: int
    traffic: int
    times: int = 1

    def seconds(self, rates: Rates) -> float:
        """The time on a machine of these rates."""
        computing = self.products / rates.products + self.effort / rates.effort
        return self.times * (max(computing, self.traffic / rates.traffic) + rates.start)


class Work(NamedTuple):
    """The work of one call.

    Attributes:
        loads: one for each kernel.
        working_set: bytes held at most beside arguments and results.
        footprint: bytes held at most, results included, and arguments until they are used up.
        results: bytes of the results.
    """

    loads: tuple[Load, ...]
    working_set: int
    footprint: int
    results: int

    def seconds(self, rates: Rates) -> float:
        """The time on a machine of these rates."""
        return sum(load.seconds(rates) for load in self.loads)


def work_of(function: Callable[..., PyTree], *arguments: PyTree) -> Work:
    """The work of ``function`` on ``arguments``, which may be abstract. Nothing is compiled or run.

    Loops whose length only running tells are counted once.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho._programs.roofline import work_of
        >>> work = work_of(lambda a, b: jnp.tanh(a @ b), jnp.ones((3, 5)), jnp.ones((5, 2)))
        >>> sum(load.products for load in work.loads)
        60
    """
    return _work(graph_of(function, *arguments))


def _work(graph: Graph) -> Work:
    kernels, returned = kernels_of(graph)
    inner = [_inner(kernel) for kernel in kernels]
    loads: list[Load] = []
    for kernel, (times, bodies) in zip(kernels, inner, strict=True):
        loads += [load._replace(times=load.times * times) for body in bodies for load in body.loads]
        loads += [] if bodies else [_load(graph, kernel)]
    inside = [
        max((body.working_set + body.results for body in work), default=0) for _, work in inner
    ]
    before = graph.arguments | graph.constants
    return Work(
        tuple(loads),
        working_set=_peak(graph, kernels, inside, returned=returned, elsewhere=before | returned),
        footprint=_peak(graph, kernels, inside, returned=returned, elsewhere=graph.constants),
        results=sum(graph.nbytes(value) for value in graph.results),
    )


def _inner(kernel: Kernel) -> tuple[int, list[Work]]:
    bodies = [_work(graph_of_program(body)) for body in inner_programs(kernel.operation)]
    return kernel.operation.equation.params.get("length", 1), bodies


def _load(graph: Graph, kernel: Kernel) -> Load:
    written = sum(graph.nbytes(value) for value in kernel.writes)
    read = sum(graph.nbytes(value) for value in kernel.reads)
    if kernel.operation.name == "gather":
        read = written
    elif kernel.operation.name == "dynamic_update_slice":
        read = written = graph.nbytes(kernel.operation.inputs[1])
    elif kernel.operation.name.startswith("scatter"):
        read = written = graph.nbytes(kernel.operation.inputs[2])
    return Load(_products(graph, kernel), kernel.effort, read + written)


def _products(graph: Graph, kernel: Kernel) -> int:
    name, inputs, outputs, equation = kernel.operation
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * graph.size(outputs[0]) * _extent(graph.shapes[inputs[0]], contracted)
    if name == "conv_general_dilated":
        kernel_shape, numbers = graph.shapes[inputs[1]], equation.params["dimension_numbers"]
        inside = [axis for axis in range(len(kernel_shape.shape)) if axis != numbers.rhs_spec[0]]
        return 2 * graph.size(outputs[0]) * _extent(kernel_shape, inside)
    return 0


def _extent(shape: Any, axes: Any) -> int:
    return int(np.prod([shape.shape[axis] for axis in axes]))


def _peak(
    graph: Graph,
    kernels: list[Kernel],
    inside: list[int],
    *,
    returned: frozenset[int],
    elsewhere: frozenset[int],
) -> int:
    """The most bytes alive at once, without the values that are held ``elsewhere``."""
    last = {value: i for i, kernel in enumerate(kernels) for value in kernel.reads}
    alive = peak = sum(graph.nbytes(value) for value in graph.arguments - elsewhere)
    for i, kernel in enumerate(kernels):
        alive += sum(graph.nbytes(value) for value in kernel.writes if value not in elsewhere)
        peak = max(peak, alive + inside[i])
        ended = {value for value in kernel.reads if last[value] == i}
        ended |= {value for value in kernel.writes if value not in last}
        alive -= sum(graph.nbytes(value) for value in ended - elsewhere - returned)
    return peak
