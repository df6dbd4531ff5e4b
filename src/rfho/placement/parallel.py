"""One problem over many devices: data parallel, and with parameters spread too (FSDP).

Everything that a hypergradient keeps has the layout of what it is made of: the tape that of the state, the
hypergradient that of λ. So it is enough to say how data and initial parameters lie.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.sharding import Mesh

from rfho.dynamics import AbstractDynamics
from rfho.dynamics.initial import Given
from rfho.dynamics.inner_gradient import InnerGradient
from rfho.placement.batches import spread
from rfho.placement.layout import Devices, devices_of, laid, parameters_over, whole_on_each
from rfho.problem import Objective, Problem
from rfho.problem.objective import is_objective
from rfho.typing import Batch, Hyper, Params, PyTree


def data_parallel(
    problem: Problem, mesh: Mesh, *, axes: str | tuple[str, ...] | None = None
) -> Problem:
    """``problem`` with the examples of every batch over the devices of ``mesh``, and parameters on each.

    Training and validation data that are arrays are cut along their leading axis. Of a `Stream` or an
    `Indexed` the data lie on every device, and each batch is cut; of a `HostStream` and any other function
    of the step the batch is cut. Gradients are summed over the devices at every step; nothing else of the way
    there and back is sent around.

    Args:
        problem: any `Problem`. What is already cut over devices stays as it is. Hyperparameters lie
            as they are given: one weight for each example may be cut like the examples.
        mesh: as `jax.make_mesh` gives it, its axes automatic or explicit. For explicit axes call
            `jax.set_mesh` first, as JAX wants it.
        axes: over which axes of the mesh; all of them by default.

    Returns:
        The same problem, for all verbs and methods.

    Raises:
        TypeError: ``mesh`` is none, or ``problem`` is none.
        ValueError: examples do not divide over the devices; of batches when the first one is traced.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((w - batch) ** 2)
        >>> dynamics = rfho.Descent(
        ...     square, lambda hyper: optax.sgd(hyper["lr"]), init=jnp.zeros(())
        ... )
        >>> train = rfho.Stream(jnp.arange(32.0), size=16, key=0)
        >>> problem = rfho.Problem(dynamics, square, train, jnp.ones(16), horizon=5)
        >>> automatic = (jax.sharding.AxisType.Auto,)
        >>> mesh = jax.make_mesh((len(jax.devices()),), ("examples",), axis_types=automatic)
        >>> spread = rfho.placement.data_parallel(problem, mesh)
        >>> abs(rfho.hyper_gradient(spread, {"lr": 0.1}).hypergradient["lr"]) > 1
        Array(True, dtype=bool)
    """
    devices = devices_of(mesh, axes, "data_parallel")
    _check(problem, "data_parallel")
    dynamics = laid(problem.dynamics, whole_on_each(devices), "dynamics")
    return _over(problem, dynamics, devices)


def fsdp(problem: Problem, mesh: Mesh, *, axes: str | tuple[str, ...] | None = None) -> Problem:
    """``problem`` with its examples over the devices, and its parameters, slots and tape as well.

    For what is too large for one device (fully sharded data parallelism, arXiv 1910.02054 and 2304.11277).
    Each array of the parameters is cut along its longest axis that divides over the devices, one without
    such an axis lies on each of them; whatever is made of parameters lies as they do, so that the tape of n
    devices takes an n-th of its memory on each. Parameters are brought together where they are used.

    Args:
        problem: as in `data_parallel`; ``init`` may be arrays or a function of hyper. Parameters that
            are already cut over devices stay as they are.
        mesh: as in `data_parallel`. Over automatic axes the compiler brings parameters together where
            it has to. Over explicit ones loss and objectives of `Descent` and `HeavyBall` get them whole; other
            dynamics call `jax.sharding.reshard` in their step.
        axes: over which axes of the mesh; all of them by default.

    Returns:
        The same problem, for all verbs and methods.

    Raises:
        TypeError, ValueError: as `data_parallel`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((batch @ w - 1) ** 2)
        >>> dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(16))
        >>> problem = rfho.Problem(
        ...     dynamics, square, jnp.ones((8, 16)), jnp.ones((8, 16)), horizon=5
        ... )
        >>> automatic = (jax.sharding.AxisType.Auto,)
        >>> mesh = jax.make_mesh((len(jax.devices()),), ("d",), axis_types=automatic)
        >>> estimate = rfho.hyper_gradient(rfho.placement.fsdp(problem, mesh), {"lr": 0.01})
        >>> estimate.aux.params.shape
        (16,)
    """
    devices = devices_of(mesh, axes, "fsdp")
    _check(problem, "fsdp")
    dynamics = _with_parameters_over(problem.dynamics, devices)
    return _over(problem, dynamics, devices, gathering=devices.explicit)


def _check(problem: Any, of: str) -> None:
    if not isinstance(problem, Problem):
        raise TypeError(f"{of} got a {type(problem).__name__}, but it must be a rfho.Problem")


def _over(
    problem: Problem, dynamics: AbstractDynamics, devices: Devices, *, gathering: bool = False
) -> Problem:
    def over(objective: Any) -> Any:
        if isinstance(objective, Objective):
            function = over(objective.function)
            return Objective(function, spread(objective.data, devices, "objective.data"))
        objective = laid(objective, whole_on_each(devices), "objective")
        return Gathering(objective, devices) if gathering else objective

    return Problem(
        dynamics,
        jax.tree.map(over, problem.objective, is_leaf=is_objective),
        train=spread(problem.train, devices, "train"),
        valid=spread(problem.valid, devices, "valid"),
        horizon=problem.horizon,
    )


def _with_parameters_over(dynamics: AbstractDynamics, devices: Devices) -> Any:
    cut = parameters_over(devices)
    init = getattr(dynamics, "_init", None)
    if init is None:
        return laid(dynamics, cut, "dynamics")
    given = isinstance(init, Given)
    init = laid(init, cut, "init") if given else SpreadInit(init, devices)
    # The start first, which then stays where it lies.
    dynamics = eqx.tree_at(lambda d: d._init, dynamics, init)
    dynamics = laid(dynamics, whole_on_each(devices), "dynamics")
    inner = getattr(dynamics, "inner", None)
    if devices.explicit and isinstance(inner, InnerGradient):
        loss = Gathering(inner.loss, devices)
        return eqx.tree_at(lambda d: d.inner.loss, dynamics, loss)
    return dynamics


class SpreadInit(eqx.Module):
    """What ``init`` makes of λ, cut over devices.

    Attributes:
        init: ``hyper -> parameters``.
        devices: over which.
    """

    init: Callable[[Hyper], PyTree]
    devices: Devices = eqx.field(static=True)

    def __call__(self, hyper: Hyper) -> PyTree:
        """The initial parameters."""
        return laid(self.init(hyper), parameters_over(self.devices), "init(hyper)", keep=False)


class Gathering(eqx.Module):
    """A loss or an objective that gets whole parameters from those that are cut over devices.

    Attributes:
        function: ``(params, hyper, batch) -> …``.
        devices: over which they are cut.
    """

    function: Callable[[Params, Hyper, Batch], Any]
    devices: Devices = eqx.field(static=True)

    def __call__(self, params: Params, hyper: Hyper, batch: Batch) -> Any:
        """What ``function`` gives."""
        whole = laid(params, whole_on_each(self.devices), "params", keep=False)
        return self.function(whole, hyper, batch)
