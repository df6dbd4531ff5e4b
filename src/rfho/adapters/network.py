"""What every framework's model is: trained arrays, carried arrays, and a function of both.

    apply(params, carried, inputs, key) -> (outputs, carried)

Dropout and noise draw from the key, the same on the way back as on the way forward. Without a key the model is
in evaluation: no dropout, statistics as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import rfho
from rfho.typing import Params, PyTree

Apply = Callable[[Params, PyTree, Any, Any], tuple[Any, PyTree]]
"""``(params, carried, inputs, key) -> (outputs, carried)``; the key is None in evaluation."""

Loss = Callable[[Any, Any, Any], Any]
"""``(variables, hyper, batch)`` -> a scalar, or a pair of one and what is carried."""


class Network(NamedTuple):
    """A model of any framework, as plain arrays and a pure function.

    Attributes:
        params: w, what is trained: floating-point arrays.
        carried: what layers hand from step to step: running statistics, counters.
        apply: ``(params, carried, inputs, key) -> (outputs, carried)``; key None in evaluation.

    Example:
        >>> import jax.numpy as jnp, optax, rfho
        >>> from rfho.adapters.network import Network
        >>> network = Network(jnp.ones(3), {}, lambda w, carried, x, key: (x @ w, carried))
        >>> def loss(variables, hyper, batch):
        ...     (x, y), key = batch
        ...     outputs, carried = network.apply(*variables, x, key)
        ...     return jnp.mean((outputs - y) ** 2), carried
        >>> dynamics = rfho.Descent(
        ...     loss, lambda hyper: optax.sgd(hyper["lr"]), network.variables, has_aux=True
        ... )
    """

    params: Params
    carried: PyTree
    apply: Apply

    @property
    def variables(self) -> rfho.Variables:
        """Where training begins: the ``init`` of `rfho.Descent`."""
        return rfho.Variables(self.params, self.carried)

    def supervised(self, criterion: Callable[[Any, Any], Any]) -> tuple[Loss, Loss]:
        """Loss and objective for batches of inputs and targets, as `rfho.Descent` and `rfho.Problem` take them.

        The loss calls the model in training, with the key of its batch, and returns what is carried on; the
        objective calls it in evaluation. Whatever else a loss needs (a penalty, a weight for every example) is
        written into a function of one's own, with `apply`.

        Args:
            criterion: ``(outputs, targets) -> scalar``.

        Returns:
            ``loss`` for batches ``((inputs, targets), key)``, as `rfho.Keyed` gives them, with ``has_aux=True``;
            and ``objective`` for batches ``(inputs, targets)``.

        Example:
            >>> import jax, jax.numpy as jnp, rfho
            >>> from rfho.adapters.network import Network
            >>> network = Network(jnp.ones(3), {}, lambda w, carried, x, key: (x @ w, carried))
            >>> loss, objective = network.supervised(lambda found, y: jnp.mean((found - y) ** 2))
            >>> float(objective(network.variables, {}, (jnp.ones((2, 3)), jnp.ones(2))))
            4.0
        """

        def loss(variables: Any, hyper: Any, batch: Any) -> tuple[Any, PyTree]:
            (inputs, targets), key = batch
            outputs, carried = self.apply(variables.params, variables.carried, inputs, key)
            return criterion(outputs, targets), carried

        def objective(variables: Any, hyper: Any, batch: Any) -> Any:
            inputs, targets = batch
            outputs, _ = self.apply(variables.params, variables.carried, inputs, None)
            return criterion(outputs, targets)

        return loss, objective


def network_of(params: Params, carried: PyTree, apply: Apply, *, of: str) -> Network:
    """A `Network` whose parts fit each other.

    Carried arrays get the precision of the parameters, where theirs is lower: statistics in float32 would round
    the derivative of a model in float64. They keep their dtypes from step to step.

    Args:
        params: arrays.
        carried: arrays.
        apply: as in `Network`.
        of: whose model it is, for messages.

    Raises:
        TypeError: a parameter is not of floating point; or, when it is traced, a model in double precision
            answers in single precision.
    """
    params, carried = jax.tree.map(jnp.asarray, (params, carried))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            where = f"params{jax.tree_util.keystr(path)}".replace("'", '"')
            raise TypeError(
                f"{where} of the {of} model has dtype {leaf.dtype}, but what is trained must be of floating "
                "point: keep it out of the trainable parameters"
            )
    carried = jax.tree.map(lambda leaf: _at_least(leaf, params), carried)

    def checked(params: Params, carried: PyTree, inputs: Any, key: Any) -> tuple[Any, PyTree]:
        outputs, after = apply(params, carried, jax.tree.map(jnp.asarray, inputs), key)
        _refuse_less_precision(outputs, params, of)
        return outputs, carried if key is None else jax.tree.map(_like, after, carried)

    return Network(params, carried, checked)


def _at_least(leaf: Any, params: Params) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.result_type(leaf, *jax.tree.leaves(params)))


def _like(after: Any, before: Any) -> Any:
    return after if after.dtype == before.dtype else after.astype(before.dtype)


def _refuse_less_precision(outputs: Any, params: Params, of: str) -> None:
    leaves = jax.tree.leaves(params)
    double = bool(leaves) and all(leaf.dtype == jnp.float64 for leaf in leaves)
    if double and any(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(outputs)):
        raise TypeError(
            f"the {of} model has parameters in float64 but computes in float32: hypergradients would have "
            "float32's digits. Build it in one precision"
        )
