"""The gradient of the inner loss, and the way back through it.

A step of gradient descent begins with g = ∇_w L(w, λ, b), whatever its update is. On the way back the
update is pulled back in reverse mode, which gives the cotangent of g, and g in mixed mode
(`mixed_mode`): by one jvp of a gradient, or, where residuals were kept, by a linearisation whose
products are not computed again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax

from rfho._programs import trees as tree
from rfho._programs.residuals import linearised
from rfho.dynamics import mixed_mode
from rfho.dynamics.base import Keep, Way, save_products
from rfho.dynamics.model import whole_model
from rfho.dynamics.variables import Variables, like, parted
from rfho.typing import Batch, Hyper, Params, PyTree, Scalar, State


class Slope(NamedTuple):
    """What one look at the loss gives to an update.

    Attributes:
        gradient: ∇_w L.
        carried: the carried arrays of the next step; None without `Variables`.
    """

    gradient: PyTree
    carried: PyTree


Push = Callable[[Slope], tuple[Params, Hyper]]
"""The cotangents of parameters and λ from those of a `Slope`."""

_Linear = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""From directions of the trained parameters and of the seed of what is carried to slopes, see `mixed_mode`."""


class InnerGradient(eqx.Module):
    """∇_w L, where parameters may be `Variables`.

    Attributes:
        loss: ``(params, hyper, batch) -> scalar``, or ``-> (scalar, aux)``.
        has_aux: which of them. Of `Variables` aux are the carried arrays of the next step; otherwise
            it is left out.
    """

    loss: Callable[[Params, Hyper, Batch], Any]
    has_aux: bool = eqx.field(static=True, default=False)

    def value(self, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
        """L."""
        return self._outputs(params, hyper, batch)[0]

    def at(self, params: Params, hyper: Hyper, batch: Batch) -> Slope:
        """∇_w L, and what is carried on."""
        trained, carried = parted(params)
        outputs = lambda w: self._outputs(like(params, w, carried), hyper, batch)  # noqa: E731
        return Slope(*jax.grad(outputs, has_aux=True)(trained))

    def remember(
        self, params: Params, hyper: Hyper, batch: Batch, *, keep: Keep
    ) -> tuple[Slope, PyTree]:
        """The slope, and what is kept of the way to it."""
        if keep is Keep.RESIDUALS:
            linear = linearised(self._linearise_products, params, hyper, batch)
            return linear.outputs, (linear.outputs, linear.kept())
        slope = self.at(params, hyper, batch)
        return slope, slope if keep is Keep.GRADIENTS else ()

    def recall(
        self, params: Params, hyper: Hyper, batch: Batch, *, memory: PyTree, keep: Keep
    ) -> tuple[Slope, Push]:
        """The slope once more, and its pull-back.

        One jvp needs the least memory. But where the slope is computed anew, a linearisation has it at hand, and
        needs no more unless there are loops, whose residuals are stacked.
        """
        if keep is Keep.RESIDUALS:
            slope, kept = memory
            linear = linearised(self._linearise_products, params, hyper, batch).recalled(kept)
        elif keep is Keep.GRADIENTS:
            slope, linear = memory, self._by_one_jvp(params, hyper, batch)
        else:
            anew = linearised(self._linearise, params, hyper, batch)
            slope, linear = anew.outputs, anew.pull
            if anew.loops:
                slope = self.at(params, hyper, batch)
                linear = self._by_one_jvp(params, hyper, batch)

        def push(cotangent: Slope) -> tuple[Params, Hyper]:
            by_trained, (by_hyper, by_carried) = linear(*cotangent)
            return like(params, by_trained, by_carried), by_hyper

        return slope, push

    def _by_one_jvp(self, params: Params, hyper: Hyper, batch: Batch) -> _Linear:
        outputs, trained, others = self._inexact(params, hyper, batch)

        def linear(v: PyTree, c: PyTree) -> tuple[PyTree, PyTree]:
            return mixed_mode.pulled_back(outputs, trained, others, cotangents=(v, c))

        return linear

    def _linearise_products(
        self, params: Params, hyper: Hyper, batch: Batch
    ) -> tuple[Slope, _Linear]:
        return self._linearise(params, hyper, batch, keeping=save_products)

    def _linearise(
        self,
        params: Params,
        hyper: Hyper,
        batch: Batch,
        *,
        keeping: Callable[[_Linear], _Linear] = lambda function: function,
    ) -> tuple[Slope, _Linear]:
        outputs, trained, others = self._inexact(params, hyper, batch)
        slopes = keeping(lambda w, c: mixed_mode.slopes(outputs, w, others, seed=c))
        (gradient, _), push = jax.linearize(slopes, trained, tree.zeros_like(others[1]))
        if isinstance(params, Variables):
            # Not the gradient beside a zero seed: where aux has an infinite derivative that is NaN.
            return self.at(params, hyper, batch), push
        return Slope(gradient, None), push

    def _inexact(
        self, params: Params, hyper: Hyper, batch: Batch
    ) -> tuple[mixed_mode.Outputs, Params, PyTree]:
        """L and what is carried on, as a function of w and of θ = (λ, carried): of inexact leaves alone."""
        trained, carried = parted(params)
        others, rest = tree.split((hyper, carried))

        def outputs(trained: Params, others: PyTree) -> tuple[Scalar, PyTree]:
            hyper, carried = eqx.combine(others, rest)
            value, after = self._outputs(like(params, trained, carried), hyper, batch)
            return value, tree.inexact(after)

        return outputs, trained, others

    def _outputs(self, params: Params, hyper: Hyper, batch: Batch) -> tuple[Scalar, PyTree]:
        """L, and what is carried on.

        Raises:
            TypeError: the loss does not return what `has_aux` and `Variables` promise.
        """
        returned = self.loss(whole_model(params), hyper, batch)
        if not self.has_aux:
            _refuse_aux(params, returned)
            return returned, None
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(
                f"loss returned {_kind(returned)}, but with has_aux=True it must return a pair (scalar, aux)"
            )
        value, aux = returned
        if not isinstance(params, Variables):
            return value, None
        _check_carried(params.carried, aux)
        return value, aux


def way_through_gradient(
    inner: InnerGradient, take: Callable[[State, Slope, Hyper], State], keep: Keep
) -> Way:
    """The way back of ``take(state, slope, hyper)`` after the slope at ``state.params``."""

    def remember(state: State, hyper: Hyper, batch: Batch) -> tuple[State, PyTree]:
        slope, memory = inner.remember(state.params, hyper, batch, keep=keep)
        return take(state, slope, hyper), memory

    def pull_back(
        adjoint: PyTree, state: State, memory: PyTree, hyper: Hyper, batch: Batch
    ) -> tuple[PyTree, PyTree]:
        slope, push = inner.recall(state.params, hyper, batch, memory=memory, keep=keep)
        _, vjp = eqx.filter_vjp(take, state, slope, hyper)
        adjoint, cotangent, by_update = vjp(adjoint)
        by_params, by_hyper = push(cotangent)
        params = tree.add(adjoint.params, by_params)
        return adjoint._replace(params=params), tree.add(by_update, by_hyper)

    return Way(remember, pull_back, again=take if keep is Keep.GRADIENTS else None)


def _refuse_aux(params: Params, returned: Any) -> None:
    if isinstance(params, Variables):
        raise TypeError(
            "init gives rfho.Variables, whose carried arrays come from the loss: let it return "
            "(scalar, carried) and pass has_aux=True to rfho.Descent"
        )
    if isinstance(returned, tuple | list | dict):
        raise TypeError(
            f"loss returned {_kind(returned)}, but it must return a floating-point scalar: if there is more "
            "to return, pass has_aux=True to rfho.Descent and return a pair (scalar, aux)"
        )


def _check_carried(before: PyTree, after: PyTree) -> None:
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise TypeError(
            f"loss returned carried arrays of structure {jax.tree.structure(after)}, but rfho.Variables began "
            f"with {jax.tree.structure(before)}: return all of them, changed or not"
        )


def _kind(returned: Any) -> str:
    length = f" of length {len(returned)}" if isinstance(returned, tuple | list) else ""
    return f"a {type(returned).__name__}{length}"
