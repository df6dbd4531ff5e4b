"""What is to become small: the outer objective E(w, λ), with data of its own where it has any."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax import Array

from rfho._programs import trees as tree
from rfho.problem.fresh import Fresh
from rfho.typing import Loss, PyTree


class Objective(eqx.Module):
    """An outer objective with data of its own, when it is not to see the problem's ``valid``.

    Args:
        function: ``(params, hyper, batch) -> scalar``.
        data: arrays, a `Stream`, or a pure function of the outer step k.

    Example:
        Tune the rate on the training loss and the penalty on the validation loss:

        >>> import jax.numpy as jnp, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((w - batch) ** 2)
        >>> objective = {"lr": rfho.Objective(square, jnp.zeros(3)), "l2": square}
    """

    function: Loss
    data: Any

    def __init__(self, function: Loss, data: Any) -> None:
        if not callable(function):
            raise TypeError(f"Objective got function={function!r}, but it must be a function")
        self.function = function
        self.data = as_data(data, "data")


class Reading(NamedTuple):
    """The objectives at one state, and their derivatives: where every method starts.

    With one objective the arrays are as they come; with several they have a leading axis of n
    objectives.

    Attributes:
        value: E, shape () or (n,).
        by_state: ∂E/∂s, the seed α_T of the adjoint; None where a leaf is not inexact.
        by_hyper: ∂E/∂λ at fixed state.
    """

    value: Array
    by_state: PyTree
    by_hyper: PyTree


def is_objective(leaf: Any) -> bool:
    """Whether ``leaf`` is one objective rather than a tree of them."""
    return callable(leaf) or isinstance(leaf, Objective)


def checked_objective(objective: PyTree) -> PyTree:
    """``objective`` if it is one, or a tree of them.

    Raises:
        TypeError: it is neither.
    """
    leaves = jax.tree_util.tree_leaves_with_path(objective, is_leaf=is_objective)
    for path, leaf in leaves:
        if not is_objective(leaf):
            where = tree.path_of(path, "objective")
            raise TypeError(
                f"{where} is {leaf!r}, but it must be a function (params, hyper, batch) -> scalar"
            )
    if not leaves:
        raise TypeError(
            "objective is empty, but it must be a function (params, hyper, batch) -> scalar"
        )
    return objective


def as_data(data: Any, name: str) -> Any:
    """Arrays made JAX arrays; functions and None as they are.

    Raises:
        ValueError: an array is empty, or holds a NaN or an infinity.
    """
    if data is None or callable(data) or isinstance(data, Fresh):
        return data
    data = tree.as_arrays(data, name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if leaf.size == 0:
            where = tree.path_of(path, name)
            raise ValueError(
                f"{where} has shape {leaf.shape}, but there must be at least one example"
            )
    bad = tree.first_non_finite(data, name)
    if bad is not None:
        raise ValueError(f"{bad} holds a NaN or an infinity: clean the data first")
    return data
