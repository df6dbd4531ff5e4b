"""Ray: outer loops as trainables, whose checkpoints are snapshots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import rfho
from rfho.errors import SnapshotError, needed, positive_int
from rfho.hyper_gradients import AbstractHyperGradient, Estimate
from rfho.outer import Sections, TunerState, load_snapshot, named, save_snapshot
from rfho.typing import Hyper, PyTree

_DEFAULT: rfho.Tuner = rfho.Tuner()


def trainable(
    build: Callable[[dict[str, Any]], tuple[rfho.Problem, Hyper]],
    *,
    steps: int,
    method: AbstractHyperGradient = _DEFAULT.method,
    optim: optax.GradientTransformation = _DEFAULT.optim,
    domain: PyTree = rfho.Reals(),
) -> Any:
    """A class for ``ray.tune.Tuner`` that tunes hyperparameters by hypergradients in each of its trials.

    A step of the trial is an outer step. It reports the objective as ``value``, at the λ that the step began
    with, and every hyperparameter that is one number as ``hyper/…``, after the step. A checkpoint is a
    snapshot, never a pickle: a trial whose worker is killed goes on from there, and ends with the same
    bits. Set ``CheckpointConfig(checkpoint_frequency=…)`` and ``FailureConfig(max_failures=…)`` in Ray's
    ``RunConfig``.

    Args:
        build: ``config -> (problem, λ_0)``, called in the worker, so that neither has to be pickled.
        steps: outer steps of a trial.
        method: as in `rfho.tune`.
        optim: as in `rfho.tune`.
        domain: as in `rfho.tune`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: ``steps`` is no int of 1 or more.
        HyperGradientError: in the trial, which fails: a value, a hypergradient or a hyperparameter is not finite.

    Example:
        >>> from rfho.adapters.ray import trainable
        >>> tuner = ray.tune.Tuner(  # doctest: +SKIP
        ...     trainable(build, steps=50),
        ...     param_space={"width": ray.tune.grid_search([32, 64])},
        ... )
    """
    ray_tune = needed("ray.tune", by="rfho.adapters.ray", extra="ray")
    total = positive_int(steps, "steps", "trainable")
    tuner = rfho.Tuner(method, optim, domain)

    class HyperGradientTrainable(ray_tune.Trainable):
        """The outer loop of one trial."""

        def setup(self, config: dict[str, Any]) -> None:
            """The problem, and the state before the first outer step."""
            self.problem, hyper = build(config)
            self.state: TunerState = tuner.init(self.problem, hyper)

        def step(self) -> dict[str, Any]:
            """One outer step."""
            self.state, estimate = tuner.step(self.problem, self.state)
            if not bool(self.state.finite):
                raise _failure(int(self.state.step), estimate)
            numbers = {f"hyper/{name}": leaf for name, leaf in named(self.state.free, "hyper")}
            numbers |= dict(named(estimate.value, "value"))
            said = {name: float(leaf) for name, leaf in numbers.items() if leaf.ndim == 0}
            return said | {"done": int(self.state.step) >= total}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """A snapshot of the state."""
            save_snapshot(Path(checkpoint_dir), self.state, {})

        def load_checkpoint(self, checkpoint: str) -> None:
            """The state of the snapshot, whose arrays are checked."""
            found = load_snapshot(Path(checkpoint), self._form)
            if found is None:
                raise SnapshotError(f"{checkpoint} holds no snapshot of rfho")
            self.state = found.state

        def _form(self, _: Sections) -> TunerState:
            return self.state

    return HyperGradientTrainable


def _failure(step: int, estimate: Estimate) -> rfho.HyperGradientError:
    """What is not finite after an outer step."""
    if not _all_finite(estimate.value):
        result = rfho.Result.NON_FINITE_VALUE
    elif not _all_finite(estimate.hypergradient):
        result = rfho.Result.NON_FINITE_HYPERGRADIENT
    else:
        result = rfho.Result.NON_FINITE_HYPER
    return rfho.HyperGradientError(result, f"outer step {step}: {result.value}")


def _all_finite(tree: PyTree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
