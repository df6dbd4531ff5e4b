"""The work of a traced function: what it computes and what it moves, counted without compiling it.

    seconds = products / P + effort / E + bytes / B + kernels κ + sent / S

with the `Rates` P, E, B, κ and S of a machine. Elementwise operations are fused into the kernels that use their
results, so they compute and move nothing; reshapes and transpositions cost nothing; all others read
their operands and write their results. A primitive that stands in no table is named, not guessed.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from rfho._programs.liveness import without_dead_code
from rfho._programs.walk import (
    Equation,
    Program,
    aval_of,
    called,
    children,
    is_literal,
    scan_of,
    trace,
)
from rfho.typing import PyTree


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FREE = _words(
    """
    reshape squeeze expand_dims transpose copy copy_p stop_gradient split broadcast_in_dim iota
    convert_element_type bitcast_convert_type slice rev optimization_barrier sharding_constraint
    device_put name random_wrap empty random_unwrap create_token reshard pvary debug_callback
    check layout_constraint
    """
)
_ELEMENTWISE = _words(
    """
    abs add add_any and atan2 cbrt ceil clamp clz complex conj cos cosh acos acosh sin sinh asin
    asinh tan tanh atan atanh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul ne neg
    nextafter not or polygamma population_count pow real reduce_precision rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sqrt square sub xor zeta
    igamma igammac igamma_grad_a random_gamma_grad regularized_incomplete_beta bessel_i0e
    bessel_i1e one_minus_square
    """
)
_MOVES = _words(
    """
    concatenate stack unstack pad gather dynamic_slice dynamic_update_slice scatter
    scatter_sub scatter_add
    scatter_mul scatter_min scatter_max top_k approx_top_k clip reduce reduce_sum reduce_prod
    reduce_max reduce_min reduce_and reduce_or reduce_xor argmax argmin cumsum cumprod cummax
    cummin cumlogsumexp reduce_window reduce_window_sum reduce_window_max reduce_window_min
    select_and_scatter select_and_scatter_add select_and_gather_add random_bits random_fold_in
    random_seed random_split random_gamma random_clone threefry2x32 pure_callback io_callback
    """
)
_LOGARITHMIC = {"sort": 1, "fft": 5}
"""Operations per element and bit of the number of elements."""

_CUBIC = _words(
    """
    cholesky cholesky_update lu lu_pivots_to_permutation triangular_solve qr geqrf geqp3
    householder_product eig eigh svd schur hessenberg tridiagonal tridiagonal_solve
    """
)


class Rates(NamedTuple):
    """How fast a machine is; only the ratios of the four matter to what is predicted.

    The defaults are of a CPU with two cores, fitted by ``python -m benchmarks.auto --fit``.

    Attributes:
        products: P, operations of matrix products and convolutions per second.
        effort: E, other elementary operations per second.
        traffic: B, bytes per second.
        start: κ, seconds to start a kernel.
        sending: S, bytes per second from a device to others.
    """

    products: float = 5.2e10
    effort: float = 1.2e10
    traffic: float = 5e9
    start: float = 1.4e-7
    sending: float = math.inf


class Work(NamedTuple):
    """The work of one call.

    Attributes:
        products: operations of matrix products and convolutions, two for each multiplication.
        effort: other elementary operations.
        traffic: bytes read and written.
        kernels: passes over memory.
        unknown: primitives whose work is not known, and not counted.
        sent: bytes that a device sends to others, which only a compiled program tells.
    """

    products: int = 0
    effort: int = 0
    traffic: int = 0
    kernels: int = 0
    unknown: frozenset[str] = frozenset()
    sent: int = 0

    def seconds(self, rates: Rates) -> float:
        """The time on a machine of these rates."""
        computing = self.products / rates.products + self.effort / rates.effort
        moving = self.traffic / rates.traffic + self.sent / rates.sending
        return computing + moving + self.kernels * rates.start

    def times(self, count: int) -> "Work":
        """The work of several calls."""
        return self.with_each(self, lambda number, _: count * number)

    def with_each(self, other: "Work", together: Callable[[int, int], int]) -> "Work":
        """Two works as one, number by number."""
        return Work(
            together(self.products, other.products),
            together(self.effort, other.effort),
            together(self.traffic, other.traffic),
            together(self.kernels, other.kernels),
            self.unknown | other.unknown,
            together(self.sent, other.sent),
        )


def work_of(function: Callable[..., PyTree], *arguments: PyTree) -> Work:
    """The work of ``function`` on ``arguments``, which may be abstract. Nothing is compiled or run.

    Loops whose length only running tells are counted once, and of several branches the most of each.

    Example:
        >>> import jax.numpy as jnp
        >>> from rfho._programs.roofline import work_of
        >>> work = work_of(lambda a, b: jnp.tanh(a @ b), jnp.ones((3, 5)), jnp.ones((5, 2)))
        >>> work.products, work.effort, work.kernels
        (60, 6, 1)
    """
    return _work(without_dead_code(trace(function, *arguments)[0]))


def _work(program: Program) -> Work:
    works = map(_work_of_equation, program.jaxpr.eqns)
    return functools.reduce(lambda one, other: one.with_each(other, operator.add), works, Work())


def _work_of_equation(equation: Equation) -> Work:
    name, call, scan = equation.primitive.name, called(equation), scan_of(equation)
    results = sum(map(_size, equation.outvars))
    if name in _FREE:
        return Work()
    if name in _ELEMENTWISE:
        return Work(effort=results)
    if name in _MOVES or name in _LOGARITHMIC or name in _CUBIC or name in _PRODUCTS:
        return _work_of_kernel(equation)
    if call is not None:
        return _work(call)
    if scan is not None:
        return _work(scan.body).times(len(scan.order))
    inner = map(_work, children(equation))
    most = functools.reduce(lambda one, other: one.with_each(other, max), inner, Work())
    if children(equation):
        return most
    return Work(traffic=_bytes(equation), kernels=1, unknown=frozenset([name]))


def _work_of_kernel(equation: Equation) -> Work:
    name, moved = equation.primitive.name, _bytes(equation)
    largest = max(map(_size, equation.invars), default=0)
    if name in _PRODUCTS:
        count = 2 * _size(equation.outvars[0]) * _PRODUCTS[name](equation)
        return Work(products=count, traffic=moved, kernels=1)
    if name in _LOGARITHMIC:
        count = _LOGARITHMIC[name] * largest * max(1, largest.bit_length())
        return Work(effort=count, traffic=moved, kernels=1)
    if name in _CUBIC:
        side = max(aval_of(equation.invars[0]).shape[-1:], default=1)
        return Work(products=2 * largest * side, traffic=moved, kernels=1)
    if name.startswith(("reduce", "cum", "arg", "random", "threefry", "select_and")):
        return Work(effort=largest, traffic=moved, kernels=1)
    return Work(traffic=moved, kernels=1)


def _contracted(equation: Equation) -> int:
    (axes, _), _ = equation.params["dimension_numbers"]
    return _extent(equation.invars[0], axes)


def _inside_window(equation: Equation) -> int:
    window = equation.invars[1]
    outputs = equation.params["dimension_numbers"].rhs_spec[0]
    return _extent(window, [axis for axis in range(aval_of(window).ndim) if axis != outputs])


_PRODUCTS: dict[str, Callable[[Equation], int]] = {
    "dot_general": _contracted,
    "conv_general_dilated": _inside_window,
    "ragged_dot": lambda equation: _extent(equation.invars[0], [-1]),
    "ragged_dot_general": lambda equation: _extent(equation.invars[0], [-1]),
}
"""For products: the multiplications for one element of the result."""


def _bytes(equation: Equation) -> int:
    """Bytes that a kernel reads and writes: of what it looks up or changes, only those."""
    name, operands = equation.primitive.name, equation.invars
    if name in ("gather", "dynamic_slice"):
        return 2 * sum(map(_nbytes, equation.outvars))
    if name == "dynamic_update_slice":
        return 2 * _nbytes(operands[1])
    if name.startswith("scatter"):
        return 2 * _nbytes(operands[2])
    return sum(map(_nbytes, (*operands, *equation.outvars)))


def _extent(atom: Any, axes: Any) -> int:
    return math.prod(aval_of(atom).shape[axis] for axis in axes)


def _size(atom: Any) -> int:
    return math.prod(getattr(aval_of(atom), "shape", ()))


def _nbytes(atom: Any) -> int:
    """Bytes of a value; none of a number in the program itself."""
    dtype = getattr(aval_of(atom), "dtype", None)
    return 0 if is_literal(atom) else _size(atom) * getattr(dtype, "itemsize", 0)
