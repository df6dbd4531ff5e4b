r"""Where λ may lie, for all of it at once: the domains spread over the leaves of ``hyper``.

.. math:: u = \mathrm{chart}(\lambda) \qquad \bar u = \partial\mathrm{unchart}(u)^\top g \qquad
          \lambda \leftarrow \mathrm{project}(\mathrm{unchart}(u))

``hyper`` holds what is learned, and beside it what any configuration holds: `Fixed` arrays, ints, words,
functions. `Space.split` takes the two apart; what is not learned reaches the user's functions as it is.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rfho._programs import trees as tree
from rfho._programs.tracing import is_traced
from rfho.domains.base import AbstractDomain
from rfho.domains.domain_tree import domain_tree
from rfho.domains.fixed import Fixed
from rfho.domains.reals import Reals
from rfho.typing import Hyper, PyTree

_Named = tuple[AbstractDomain, str, Any]
"""A domain, the path of its leaf, and the leaf."""


class Rest(eqx.Module):
    """The leaves of ``hyper`` that are not learned.

    Attributes:
        arrays: those that are arrays; None elsewhere.
        static: all others, as they are, which are part of the program rather than of its data.
    """

    arrays: PyTree
    static: "tuple[tuple[Any, ...], Any]" = eqx.field(static=True)

    @staticmethod
    def of(others: PyTree) -> "Rest":
        """Of a tree with None where a leaf is learned.

        Raises:
            TypeError: a leaf is neither an array nor hashable.
        """
        arrays, static = eqx.partition(others, eqx.is_array)
        _check_hashable(static)
        leaves, structure = jax.tree.flatten(static)
        return Rest(arrays, (tuple(leaves), structure))

    def join(self, free: Hyper) -> Hyper:
        """``free`` with the leaves that are not learned."""
        leaves, structure = self.static
        return eqx.combine(free, self.arrays, jax.tree.unflatten(structure, leaves))


class Space(eqx.Module):
    """A domain for each learned leaf of ``hyper``, made once per run.

    Attributes:
        domains: in the structure of ``hyper``, None where a leaf is not learned.

    Example:
        >>> from rfho import domains
        >>> hyper = {"lr": 0.1, "layers": 3}
        >>> space = domains.Space.of(domains.Positive(), hyper)
        >>> free, rest = space.split(hyper)
        >>> free["layers"] is None, rest.join(free)["layers"]
        (True, 3)
    """

    domains: PyTree

    @staticmethod
    def of(domain: PyTree, hyper: Hyper) -> "Space":
        """``domain``, a domain or a tree prefix of ``hyper``, spread over its leaves.

        Raises:
            TypeError: a leaf is an array of integers or bools and not `Fixed`, or has a domain of its own
                and is no number; the message names its path.
            ValueError: ``domain`` is no prefix of ``hyper``, or no leaf is learned.
        """
        domains = domain_tree(domain, hyper)
        named = _leaf_paths(domain)

        def of_leaf(path: tuple[Any, ...], leaf: Any, domain: AbstractDomain) -> Any:
            where = tree.path_of(path, "hyper")
            return domain if _is_learned(leaf, domain, where, named=path in named) else None

        spread = jax.tree.map_with_path(
            lambda path, domain, leaf: of_leaf(path, leaf, domain),
            domains,
            hyper,
            is_leaf=_is_domain,
        )
        if not jax.tree.leaves(spread, is_leaf=_is_domain):
            raise ValueError(
                "every leaf of hyper is Fixed() or static, but there must be one to tune: write 0.1 rather "
                "than 1 for what is to be learned"
                if jax.tree.leaves(hyper)
                else "hyper has no leaves, but there must be at least one hyperparameter to tune"
            )
        return Space(spread)

    def split(self, hyper: Hyper) -> tuple[Hyper, Rest]:
        """The learned leaves as arrays, None elsewhere; and all others."""
        learned = jax.tree.map(
            _is_domain, self.domains, is_leaf=lambda node: node is None or _is_domain(node)
        )
        free, others = eqx.partition(hyper, learned)
        return jax.tree.map(tree.strong, free), Rest.of(others)

    def chart(self, free: Hyper) -> PyTree:
        """The coordinates in which the outer optimiser moves."""
        return self.leafwise(lambda domain, leaf: domain.chart(leaf), free)

    def unchart(self, u: PyTree) -> Hyper:
        """The inverse of `chart`."""
        return self.leafwise(lambda domain, leaf: domain.unchart(leaf), u)

    def pull(self, u: PyTree, hypergradient: Hyper) -> PyTree:
        """The hypergradient in the coordinates of the chart: ∂unchart(u)ᵀ g."""
        pull = lambda domain, u, g: jax.vjp(domain.unchart, u)[1](g)[0]  # noqa: E731
        return self.leafwise(pull, u, hypergradient)

    def project(self, free: Hyper) -> Hyper:
        """The nearest point of the space, leaf by leaf."""
        return self.leafwise(lambda domain, leaf: domain.project(leaf), free)

    def check(self, free: Hyper) -> None:
        """Refuses a start that a domain cannot hold, or that lies outside of it.

        Raises:
            ValueError: the message names the leaf.
        """
        self.check_kind(free)
        known = [each for each in self._bounded(free) if not is_traced(each[2])]
        inside = _contained([(domain, leaf) for domain, _, leaf in known]) if known else []
        _refuse_outside(known, inside)

    def check_kind(self, free: Hyper) -> None:
        """Refuses a start that a domain cannot hold.

        Raises:
            ValueError: the message names the leaf.
        """
        for domain, where, leaf in self._named(free):
            if not is_traced(leaf):
                domain.check(leaf, where)

    def contains(self, free: Hyper) -> list[Bool[Array, ""]]:
        """Whether each leaf that has bounds is within them; `check_inside` says so in words."""
        return [domain.contains(leaf) for domain, _, leaf in self._bounded(free)]

    def check_inside(self, free: Hyper, inside: list[Bool[Array, ""]]) -> None:
        """Refuses a start of which `contains` has found that it lies outside.

        Raises:
            ValueError: the message names the leaf.
        """
        _refuse_outside(self._bounded(free), inside)

    def _named(self, free: Hyper) -> list[_Named]:
        domains = jax.tree.leaves(self.domains, is_leaf=_is_domain)
        leaves = jax.tree_util.tree_leaves_with_path(free)
        return [
            (domain, tree.path_of(path, "hyper"), leaf)
            for domain, (path, leaf) in zip(domains, leaves, strict=True)
        ]

    def _bounded(self, free: Hyper) -> list[_Named]:
        return [each for each in self._named(free) if not isinstance(each[0], Reals)]

    def leafwise(self, function: Callable[..., Any], *trees: PyTree) -> PyTree:
        """``function(domain, leaf, …)`` over all learned leaves."""
        return jax.tree.map(function, self.domains, *trees, is_leaf=_is_domain)


def _refuse_outside(bounded: list[_Named], inside: list[Bool[Array, ""]]) -> None:
    for (domain, where, _), is_in in zip(bounded, jax.device_get(inside), strict=True):
        if not is_in:
            raise ValueError(
                f"{where} starts outside its domain {domain}: start inside, for example from the "
                "domain's project(x)"
            )


@eqx.filter_jit
def _contained(pairs: list[tuple[AbstractDomain, Array]]) -> list[Bool[Array, ""]]:
    """Whether each leaf lies in its domain: one program for all of them."""
    return [domain.contains(leaf) for domain, leaf in pairs]


def space_of(domain: PyTree, hyper: Hyper) -> Space:
    """The space of ``domain`` over ``hyper``; `Reals` where none is given."""
    return Space.of(Reals() if domain is None else domain, hyper)


def _is_learned(leaf: Any, domain: AbstractDomain, where: str, *, named: bool) -> bool:
    if isinstance(domain, Fixed):
        domain.check(leaf, where)
        return False
    if tree.is_inexact_number(leaf):
        return True
    if eqx.is_array(leaf) or isinstance(leaf, np.ndarray):
        raise TypeError(
            f"{where} has dtype {jnp.result_type(leaf)}, but hyperparameters must be floating point: "
            "make it an array of floats, or mark it rfho.Fixed()"
        )
    if named and not isinstance(domain, Reals):
        raise TypeError(
            f"{where} is {leaf!r}, which is not learned, but it has the domain {domain}: write 0.1 rather "
            "than 1, or mark it rfho.Fixed()"
        )
    return False


def _check_hashable(static: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(static):
        try:
            hash(leaf)
        except TypeError as error:
            raise TypeError(
                f"{tree.path_of(path, 'hyper')} is a {type(leaf).__name__}, which is neither an array nor "
                "hashable, so that no program can be kept for it: leave it out of hyper"
            ) from error


def _leaf_paths(domain: PyTree) -> set[tuple[Any, ...]]:
    """The paths of the domains that stand at a path of their own rather than for a whole subtree."""
    named = jax.tree_util.tree_leaves_with_path(domain, is_leaf=_is_domain)
    return {path for path, _ in named if path}


def _is_domain(node: Any) -> bool:
    return isinstance(node, AbstractDomain)
