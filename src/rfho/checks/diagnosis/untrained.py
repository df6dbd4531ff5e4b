"""Parameters that the objective reads and training never changes: statistics left among what is trained.

A layer that normalises by its batch in training, and by running statistics in evaluation, needs somebody to move
these statistics. Left among the parameters, they stay at their start without a word.
"""

import jax

from rfho._programs import trees as tree
from rfho._programs.liveness import inputs_used
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.dynamics import AbstractDescent
from rfho.dynamics.variables import parted
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, Params, PyTree, State


def untrained_findings(problem: AbstractMoment, hyper: Hyper) -> list[Finding]:
    """One finding for each parameter on which the objective depends and the loss does not."""
    dynamics = problem.dynamics
    if not isinstance(dynamics, AbstractDescent):
        return []
    state = jax.eval_shape(problem.init, hyper)

    def loss(params: Params) -> jax.Array:
        return dynamics.loss(params, problem.whole(hyper), problem.train_batch(0))

    def objective(state: State) -> PyTree:
        return problem.evaluate(dynamics.output(state), hyper)

    (trained,), (seen,) = inputs_used(loss, state.params), inputs_used(objective, state)
    message = (
        "{} is read by the objective and changed by nothing: the loss does not depend on it, so it stays at its "
        "start. Statistics and counters are carried, not trained: rfho.Variables(params, carried), and a loss that "
        "returns what is carried on"
    )
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(parted(trained).params),
        jax.tree.leaves(parted(seen.params).params),
        strict=True,
    )
    paths = [tree.path_of(path, "params") for (path, moves), read in pairs if read and not moves]
    return [
        Finding(Kind.UNTRAINED, Where(leaf=path), message.format(path), Severity.WARNING)
        for path in paths
    ]
