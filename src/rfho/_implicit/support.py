r"""The adjoint system of proximal descent: implicit differentiation on the support alone (arXiv 2002.08943).

.. math:: F(w, \lambda) = w - \operatorname{prox}_{\eta\Omega}(w - \eta \nabla L(w, \lambda)) = 0

Where prox is flat (a coefficient that is 0, a bound that is met) its derivative is 0, so that such entries take
part neither in the matrix nor in the right-hand side: the system is that of the support.
"""

from typing import Any

import jax

from rfho._implicit.condition import AbstractCondition, System, full_batch
from rfho._programs import trees as tree
from rfho.dynamics.proximal import Proximal
from rfho.problem.moment import AbstractMoment
from rfho.solvers import Operator
from rfho.typing import Hyper, Params, PyTree, State


class OnSupport(AbstractCondition):
    """w = prox(w - η ∇L): one more step of `rfho.dynamics.Proximal` changes nothing.

    The matrix is not symmetric as a rule: take `rfho.solvers.GMRES`, or `rfho.solvers.NormalEquations`. Where an
    entry is about to enter or to leave the support the solution has a kink; the derivative is that of the support
    as it is.

    Args:
        batch: the data of the loss; the problem's ``train`` by default, which must then be arrays.

    Example:
        >>> import rfho
        >>> method = rfho.ImplicitHyperGradient(
        ...     rfho.solvers.GMRES(), condition=rfho.hyper_gradients.OnSupport()
        ... )
    """

    batch: Any = None

    def check(self, problem: AbstractMoment, hyper: Hyper) -> None:
        """Proximal dynamics, a full batch."""
        _proximal(problem)
        full_batch(problem, self.batch, "OnSupport")

    def unknowns(self, state: State) -> Params:
        """The parameters w."""
        return state.params

    def replaced(self, state: State, unknowns: Params) -> State:
        """The state with the parameters replaced, at rest."""
        return state._replace(params=unknowns, point=unknowns)

    def system(self, problem: AbstractMoment, hyper: Hyper, state: State) -> System:
        """w - prox(w - η ∇L), and one step pulled back any number of times."""
        batch = full_batch(problem, self.batch, "OnSupport")
        dynamics = _proximal(problem)

        def once(params: Params, hyper: Hyper) -> Params:
            return dynamics.once(params, problem.whole(hyper), batch)

        after, pull = jax.vjp(once, state.params, hyper)
        _, push = jax.linearize(lambda w: once(w, hyper), state.params)

        def apply(q: PyTree) -> PyTree:
            return tree.subtract(q, pull(q)[0])

        def transpose(q: PyTree) -> PyTree:
            return tree.subtract(q, push(q))

        def cross(q: PyTree) -> Hyper:
            return tree.scale(-1.0, pull(q)[1])

        slope = tree.subtract(state.params, after)
        return System(slope, Operator(apply, transpose), cross, symmetric=False)


def _proximal(problem: AbstractMoment) -> Proximal:
    if not isinstance(problem.dynamics, Proximal):
        raise TypeError(
            "the condition OnSupport is one of proximal descent, but the dynamics are a "
            f"{type(problem.dynamics).__name__}: describe training as a rfho.dynamics.Proximal, or use "
            "rfho.Stationary() or rfho.FixedPoint()"
        )
    return problem.dynamics
