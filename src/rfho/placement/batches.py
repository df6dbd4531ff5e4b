"""Batches that are cut over devices as they are made: the same batch for the same step, each device its part."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from rfho.placement.layout import Devices, examples_over, laid, whole_on_each
from rfho.problem import Fresh, HostStream, Keyed
from rfho.typing import Batch, PyTree, Step


class Spread(eqx.Module):
    """What ``data`` gives for a step, cut over devices along the axis of examples.

    Attributes:
        data: a pure function of the step.
        devices: over which.
        name: what messages call it.
    """

    data: Callable[[Step], Any]
    devices: Devices = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __call__(self, t: Step) -> Batch:
        """The batch of step t."""
        batch = self.data(t)
        if isinstance(self.data, HostStream):
            # It comes to one device: to all first, from where each keeps its part.
            batch = laid(batch, whole_on_each(self.devices), self.name, keep=False)
        return laid(batch, examples_over(self.devices), f"{self.name}(t)", keep=False)


class SpreadDraw(eqx.Module):
    """What ``draw`` gives for an outer step, be it arrays or a stream, cut over devices likewise."""

    draw: Callable[[Step], Any]
    devices: Devices = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __call__(self, k: Step) -> Any:
        """The data of outer step k."""
        return spread(self.draw(k), self.devices, self.name)


def spread(data: PyTree, devices: Devices, name: str) -> Any:
    """Training or validation data of any kind, with examples over the devices.

    Arrays are cut. Of a stream the data lie on every device, so that each takes its part of a batch
    without asking the others, and the batches are cut.

    Raises:
        ValueError: the examples do not divide over the devices.
    """
    if isinstance(data, Fresh):
        return Fresh(SpreadDraw(data.draw, devices, name))
    if isinstance(data, Keyed):
        # The key is one for the batch, whatever its shape.
        return eqx.tree_at(lambda keyed: keyed.data, data, spread(data.data, devices, name))
    if callable(data):
        return Spread(laid(data, whole_on_each(devices), name), devices, name)
    return laid(data, examples_over(devices), name)
