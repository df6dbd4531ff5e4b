"""Promises, and what happens to those that are not kept.

A promise is a function of the thing under test that returns if it is kept and raises `BrokenPromise`
if it is not. All promises of a kit are tried, so that one run tells everything that is wrong.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

Subject = TypeVar("Subject")


class BrokenPromise(AssertionError):
    """One promise was not kept; the message says how."""


class NotApplicable(Exception):
    """A promise says nothing about this subject."""


class ConformanceError(AssertionError):
    """Some promises were not kept.

    Attributes:
        subject: the name of what broke them.
        broken: what went wrong, by the name of the promise.
    """

    def __init__(self, subject: str, broken: dict[str, str]) -> None:
        lines = "".join(f"\n- {name}: {detail}" for name, detail in broken.items())
        super().__init__(f"{subject} breaks {len(broken)} of its promises:{lines}")
        self.subject, self.broken = subject, broken

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.subject, self.broken)


def kept(
    promises: Iterable[Callable[[Subject], None]], subject: Subject, name: str
) -> tuple[str, ...]:
    """The names of the promises that ``subject`` keeps, of those that apply to it.

    Raises:
        ConformanceError: it breaks one or more.
    """
    names, broken = list[str](), dict[str, str]()
    for promise in promises:
        try:
            promise(subject)
        except NotApplicable:
            continue
        except BrokenPromise as error:
            broken[promise.__name__] = str(error)
        except Exception as error:
            broken[promise.__name__] = f"raised {type(error).__name__}: {error}"
        else:
            names.append(promise.__name__)
    if broken:
        raise ConformanceError(name, broken)
    return tuple(names)


def require(condition: Any, message: str) -> None:
    """Breaks the promise unless ``condition`` is true."""
    if not bool(condition):
        raise BrokenPromise(message)


def applies(condition: bool) -> None:
    """Leaves the promise out unless ``condition`` is true."""
    if not condition:
        raise NotApplicable


def require_close(found: Any, expected: Any, tolerance: float, *, what: str) -> None:
    """Breaks the promise unless two pytrees agree within ``tolerance`` of the larger of 1 and their norm."""
    require_alike(found, expected, what=what)
    for (path, left), right in zip(_leaves(found), jax.tree.leaves(expected), strict=True):
        left, right = np.asarray(left), np.asarray(right)
        scale = max(1.0, float(np.max(np.abs(right), initial=0)))
        error = float(np.max(np.abs(left - right), initial=0))
        require(
            error <= tolerance * scale,
            f"{what}{path} is {left} where {right} was expected: off by {error:.2g}",
        )


def require_equal(found: Any, expected: Any, *, what: str) -> None:
    """Breaks the promise unless two pytrees are equal to the bit; NaN equals NaN."""
    require_alike(found, expected, what=what)
    for (path, left), right in zip(_leaves(found), jax.tree.leaves(expected), strict=True):
        same = np.array_equal(_plain(left), _plain(right), equal_nan=_is_inexact(left))
        require(same, f"{what}{path} is {left} and {right}, but both must be the same")


def require_alike(found: Any, expected: Any, *, what: str) -> None:
    """Breaks the promise unless structures, shapes and dtypes of two pytrees are the same."""
    ours, theirs = jax.tree.structure(found), jax.tree.structure(expected)
    require(ours == theirs, f"{what} has structure {ours}, but {theirs} was expected")
    for (path, left), right in zip(_leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = _kind(left), _kind(right)
        require(a == b, f"{what}{path} is {a}, but {b} was expected")


def require_finite(tree: Any, *, what: str) -> None:
    """Breaks the promise if a leaf holds a NaN or an infinity."""
    for path, leaf in _leaves(tree):
        if _is_inexact(leaf):
            require(np.all(np.isfinite(np.asarray(leaf))), f"{what}{path} is {leaf}")


def inexact(tree: Any) -> Any:
    """The leaves that can be differentiated; None elsewhere."""
    return eqx.filter(tree, eqx.is_inexact_array)


def normal_like(tree: Any, seed: int) -> Any:
    """Standard normal numbers in the place of every inexact leaf, None elsewhere."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, inexact(tree))


def dot(left: Any, right: Any) -> float:
    """The inner product of two pytrees."""
    products = jax.tree.map(lambda a, b: float(jnp.sum(a * b)), left, right)
    return sum(jax.tree.leaves(products))


def need_double_precision() -> None:
    """Raises RuntimeError unless JAX computes in float64."""
    if jnp.zeros(()).dtype != jnp.float64:
        raise RuntimeError(
            "conformance checks compare with finite differences, which need double precision: call "
            "jax.config.update('jax_enable_x64', True) first"
        )


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path).replace("'", '"'), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _kind(leaf: Any) -> str:
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"


def _is_inexact(leaf: Any) -> bool:
    return eqx.is_inexact_array_like(leaf)


def _plain(leaf: Any) -> Any:
    keys = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)
