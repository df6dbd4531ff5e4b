"""Random keys that are used twice, by JAX's own account of keys.

Only typed keys (`jax.random.key`) are accounted for. An old `jax.random.PRNGKey` is an array like any
other, and so is the same seed typed in twice: neither can be caught.
"""

import jax
import jax.numpy as jnp

from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, State


def key_findings(problem: AbstractMoment, hyper: Hyper) -> list[Finding]:
    """A key used twice in one step, or the same key in every step."""
    state = jax.eval_shape(problem.init, hyper)

    def steps(state: State) -> State:
        one = lambda s, t: (problem.step(s, hyper, t), None)  # noqa: E731
        return jax.lax.scan(one, state, jnp.arange(2))[0]

    with jax.debug_key_reuse(True):
        try:
            jax.make_jaxpr(steps)(state)
        except jax.errors.KeyReuseError as error:
            return [_reused(str(error).partition("\n")[0])]
    return []


def _reused(account: str) -> Finding:
    message = (
        f"a step uses a random key twice, or the same key at every step (JAX says: {account.rstrip('.')}): what "
        "should be independent is equal. Fold the step into the key, jax.random.fold_in(key, t), in the batch, "
        "and split it once for each use"
    )
    return Finding(Kind.KEY_REUSE, Where("train", 0), message, Severity.ERROR)
