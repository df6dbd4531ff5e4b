"""One domain for every leaf of ``hyper``, from a tree prefix as in ``in_axes`` of `jax.vmap`."""

from typing import Any, NamedTuple

import jax

from rfho._programs.trees import path_of
from rfho.domains.base import AbstractDomain
from rfho.typing import PyTree


def domain_tree(domain: PyTree, hyper: PyTree) -> PyTree:
    """Broadcasts a tree prefix of domains over the leaves of ``hyper``.

    A single domain applies to each leaf on its own: ``Simplex()`` over a dictionary of two
    arrays makes each array sum to one, not both together.

    Args:
        domain: a domain, or a tree that begins as ``hyper`` does and ends in domains.
        hyper: any pytree.

    Returns:
        A tree of the structure of ``hyper`` with a domain for each leaf. Map over it with
        ``is_leaf=lambda node: isinstance(node, AbstractDomain)``.

    Raises:
        ValueError: if ``domain`` is not a prefix of ``hyper``; the message names the path.

    Example:
        >>> from rfho import domains
        >>> hyper = {"lr": 0.1, "penalty": [0.0, 0.0]}
        >>> prefix = {"lr": domains.Positive(), "penalty": domains.NonNegative()}
        >>> domains.domain_tree(prefix, hyper)
        {'lr': Positive(), 'penalty': [NonNegative(), NonNegative()]}
    """
    return _broadcast(domain, hyper, ())


def _broadcast(domain: Any, hyper: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(domain, AbstractDomain):
        return jax.tree.map(lambda _: domain, hyper)
    domains, hypers = _children(domain), _children(hyper)
    if domains is None or hypers is None or domains.structure != hypers.structure:
        raise ValueError(_mismatch(domain, hyper, path))
    subtrees = [
        _broadcast(prefix, subtree, (*path, *key))
        for key, prefix, subtree in zip(hypers.keys, domains.nodes, hypers.nodes, strict=True)
    ]
    return jax.tree.unflatten(hypers.structure, subtrees)


class _Children(NamedTuple):
    keys: list[tuple[Any, ...]]
    nodes: list[Any]
    structure: Any


def _children(tree: Any) -> _Children | None:
    """What lies one level below a container; None for a leaf."""
    named, structure = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda node: node is not tree
    )
    if jax.tree_util.treedef_is_leaf(structure):
        return None
    return _Children([key for key, _ in named], [node for _, node in named], structure)


def _mismatch(domain: Any, hyper: Any, path: tuple[Any, ...]) -> str:
    ours, theirs = path_of(path, "domain"), path_of(path, "hyper")
    domains, hypers = _children(domain), _children(hyper)
    if domains is None:
        example = f"{domain.__name__}()" if isinstance(domain, type) else "Reals()"
        return f"{ours} is {domain!r}, but expected a domain: write for instance {example}"
    if hypers is None:
        return f"{ours} is a {type(domain).__name__}, but {theirs} is a leaf: give a single domain"
    have, want = set(domains.keys), set(hypers.keys)
    if missing := ", ".join(sorted(path_of((*path, *key), "hyper") for key in want - have)):
        return f"{ours} has no entry for {missing}: add one, Reals() if there is no constraint"
    if extra := ", ".join(sorted(path_of((*path, *key), "domain") for key in have - want)):
        return f"{ours} has entries that {theirs} lacks: remove or rename {extra}"
    return (
        f"{ours} is a {type(domain).__name__}, but {theirs} is a {type(hyper).__name__}: "
        "a tree prefix of hyper uses the same containers"
    )
