r"""What is done about an outer step that led to where nothing is finite: it is taken back, and taken again smaller.

.. math:: u \leftarrow u + s \cdot \mathrm{update}(g), \qquad s = \mathrm{shrink}^{\,\mathrm{retries}}

An objective that is not finite condemns the update before it, so two outer steps are taken back: the one that
failed, and the one that led there. If the run then fails no later than before, what is wrong began earlier, and it
goes back to where the objective was lowest. The outer optimiser's slots and what the method carries go back too.
"""

import equinox as eqx

from rfho.errors import positive_int


class Retry(eqx.Module):
    """How often a run goes back after a failure of its numbers, and how much smaller its outer steps are then.

    Pass it as ``retry=`` to `rfho.tune`, `rfho.iterate` or `rfho.tune_many`. A run goes back where the objective,
    the hypergradient or a hyperparameter is not finite, or where the method refuses its own estimate. It does so
    from memory, with or without ``run=``. Each time is a finding; reports count them. Where λ_0 itself is at fault,
    or all retries are used up, the run ends with its diagnosis, as without.

    Args:
        times: at most so often, in the whole run; of several starts each counts for itself.
        shrink: what the outer steps are multiplied with each time; they stay smaller from there on.

    Raises:
        ValueError: ``times`` is no int of 1 or more, or ``shrink`` does not lie between 0 and 1.

    Example:
        >>> import jax.numpy as jnp, optax, rfho, warnings
        >>> warnings.simplefilter("ignore", rfho.HyperGradientWarning)
        >>> loss = lambda w, hyper, batch: (w - 1) ** 2
        >>> dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
        >>> problem = rfho.Problem(dynamics, loss, horizon=100)
        >>> how = {"optim": optax.sgd(1e3), "steps": 5}
        >>> rfho.tune(problem, {"lr": 0.01}, **how, throw=False).result.name
        'NON_FINITE_VALUE'
        >>> solution = rfho.tune(problem, {"lr": 0.01}, **how, retry=rfho.Retry(times=8))
        >>> solution.result.name, solution.history[-1].retries > 0
        ('STEPS_DONE', True)
    """

    times: int = eqx.field(static=True, default=5)
    shrink: float = eqx.field(static=True, default=0.25)

    def __check_init__(self) -> None:
        positive_int(self.times, "times", "Retry")
        number = isinstance(self.shrink, int | float) and not isinstance(self.shrink, bool)
        if not number or not 0 < self.shrink < 1:
            raise ValueError(
                f"Retry got shrink={self.shrink!r}, but it must be a number between 0 and 1"
            )
