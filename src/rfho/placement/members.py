"""Many starts over many devices: each device trains its own, and none has to ask another."""

import equinox as eqx
from jax import Array
from jax.sharding import Mesh, NamedSharding

from rfho.placement.layout import Devices, devices_of, laid, whole_on_each
from rfho.problem import Problem
from rfho.typing import PyTree


class Members(eqx.Module):
    """The starts of `rfho.tune_many` cut over the devices of a mesh, each of which holds all of the problem.

    A device trains its members side by side, as one device does with all of them, and its tape is theirs
    alone. Between devices nothing is sent while a step is taken.

    Args:
        mesh: as `jax.make_mesh` gives it.
        axes: over which axes of the mesh; all of them by default. Of a mesh with two axes members may
            have one, and `data_parallel` the other.

    Raises:
        TypeError: ``mesh`` is none.
        ValueError: it has no such axis.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> dynamics = rfho.Descent(
        ...     lambda w, hyper, batch: (w - 1) ** 2,
        ...     lambda hyper: optax.sgd(hyper["lr"]),
        ...     jnp.zeros(()),
        ... )
        >>> problem = rfho.Problem(dynamics, lambda w, hyper, batch: (w - 1) ** 2, horizon=1)
        >>> automatic = (jax.sharding.AxisType.Auto,)
        >>> mesh = jax.make_mesh((len(jax.devices()),), ("members",), axis_types=automatic)
        >>> solutions = rfho.tune_many(
        ...     problem,
        ...     [{"lr": 0.1 * (1 + i)} for i in range(2 * len(jax.devices()))],
        ...     optim=optax.sgd(0.02),
        ...     steps=50,
        ...     placement=rfho.placement.Members(mesh),
        ... )
        >>> round(float(solutions[0].hyper["lr"]), 3)
        0.5
    """

    devices: Devices = eqx.field(static=True)

    def __init__(self, mesh: Mesh, axes: str | tuple[str, ...] | None = None) -> None:
        self.devices = devices_of(mesh, axes, "Members")

    def on_each(self, members: int) -> int:
        """How many of so many members a device has.

        Raises:
            ValueError: they do not divide over the devices.
        """
        return self.devices.share(members)

    def spread(self, together: PyTree) -> PyTree:
        """Trees that are stacked, with their leading axis over the devices."""
        return laid(together, self._cut, "members")

    def whole(self, problem: Problem) -> Problem:
        """``problem`` on every device, but for what is cut over others of the axes."""
        return laid(problem, whole_on_each(self.devices), "problem")

    def _cut(self, leaf: Array, _: str) -> NamedSharding:
        return self.devices.cut(leaf, 0)
