"""Any training algorithm at all, given as three functions."""

from collections.abc import Callable

from rfho.dynamics.base import AbstractDynamics, Keep, Way, way_through_step
from rfho.typing import Batch, Hyper, Params, State


class Dynamics(AbstractDynamics):
    """Dynamics from functions: s_0 = init(λ), s_t = step(s_{t-1}, λ, b_t), w_t = output(s_t).

    Use it when training is not gradient descent with an Optax optimiser: several networks, a
    hand-written update, a simulation. All three functions must be pure and traceable by JAX;
    randomness arrives in the batch. A step that contains `rfho.grad` in place of `jax.grad` is
    pulled back as cheaply as `Descent`.

    Args:
        init: ``hyper -> state``, any pytree of arrays (integers allowed).
        step: ``(state, hyper, batch) -> state`` with the same structure, shapes and dtypes.
        output: ``state -> params``; the whole state by default.

    Example:
        >>> import jax.numpy as jnp, rfho
        >>> decay = rfho.Dynamics(
        ...     init=lambda hyper: jnp.ones(()),
        ...     step=lambda state, hyper, batch: hyper["rate"] * state,
        ... )
        >>> problem = rfho.Problem(
        ...     decay, lambda w, hyper, batch: w, train=None, valid=None, horizon=3
        ... )
        >>> float(rfho.hyper_gradient(problem, {"rate": 0.5}).hypergradient["rate"])  # 3 rate**2
        0.75
    """

    _init: Callable[[Hyper], State]
    _step: Callable[[State, Hyper, Batch], State]
    _output: Callable[[State], Params]

    def __init__(
        self,
        init: Callable[[Hyper], State],
        step: Callable[[State, Hyper, Batch], State],
        output: Callable[[State], Params] = lambda state: state,
    ) -> None:
        for name, function in (("init", init), ("step", step), ("output", output)):
            if not callable(function):
                raise TypeError(f"Dynamics got {name}={function!r}, but {name} must be a function")
        self._init = init
        self._step = step
        self._output = output

    def init(self, hyper: Hyper) -> State:
        """s_0 = Φ_0(λ)."""
        return self._init(hyper)

    def step(self, state: State, hyper: Hyper, batch: Batch) -> State:
        """s_t = Φ(s_{t-1}, λ, b_t)."""
        return self._step(state, hyper, batch)

    def output(self, state: State) -> Params:
        """w_t."""
        return self._output(state)

    def way(self, keep: Keep) -> Way:
        """The vjp of the step."""
        return way_through_step(self.step, keep)
