"""An Equinox model among the parameters: its arrays are trained, and everything else stays as it is.

A state is made of arrays, so that it can be stacked, scanned and saved. A model holds functions, flags and
numbers beside its arrays (an activation, a dropout rate), which loss and objective need. So the state has the
model in two parts, and user's functions are given the whole.
"""

from typing import Any

import equinox as eqx
import jax

from rfho.typing import Params, PyTree


class SplitModel(eqx.Module):
    """A model as a pytree of its trained arrays, which is called as the model is.

    Attributes:
        arrays: the model with None in place of whatever is not trained.

    Example:
        >>> import equinox as eqx, jax, optax, rfho
        >>> net = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
        >>> dynamics = rfho.Descent(
        ...     lambda net, hyper, batch: net(jax.numpy.ones(2)) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     init=net,
        ... )
        >>> type(dynamics.output(dynamics.init({"lr": 0.1})).model).__name__
        'MLP'
    """

    arrays: PyTree
    _rest: tuple[Any, ...] = eqx.field(static=True)

    def __init__(self, model: eqx.Module) -> None:
        self.arrays, rest = eqx.partition(model, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(rest)
        self._rest = structure, tuple(leaves)

    @property
    def model(self) -> Any:
        """The model itself."""
        structure, leaves = self._rest
        return eqx.combine(self.arrays, jax.tree.unflatten(structure, leaves))

    def __call__(self, *args: Any, **named: Any) -> Any:
        """What the model gives, so that trained parameters are used as the model that was given."""
        return self.model(*args, **named)


def whole_model(params: Params) -> Params:
    """``params`` with every model as its user wrote it: what loss and objectives are given."""
    is_split = lambda node: isinstance(node, SplitModel)  # noqa: E731
    return jax.tree.map(
        lambda node: node.model if is_split(node) else node, params, is_leaf=is_split
    )
