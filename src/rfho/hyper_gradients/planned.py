"""A plan on paper: what a hypergradient needs of each device, before there are any.

Nothing is allocated and nothing is trained. Shapes say how large the tape is; the compiler says, for a program of
a few steps on a mesh that may be simulated, what is needed beside it and what devices send each other.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
from jax.sharding import AxisType, Mesh

from rfho._programs import trees as tree
from rfho._programs.roofline import Rates
from rfho.choice.on_devices import PartsOnDevices
from rfho.domains import Reals
from rfho.dynamics import Keep
from rfho.files import as_bytes
from rfho.hyper_gradients.base import AbstractHyperGradient
from rfho.hyper_gradients.long_reverse import LongReverseHyperGradient
from rfho.hyper_gradients.once import placed
from rfho.hyper_gradients.reverse import ReverseHyperGradient
from rfho.memory import (
    AbstractCheckpoint,
    Anchored,
    Binomial,
    HalfPrecision,
    HostMemory,
    Recompute,
    Span,
    StoreAll,
)
from rfho.placement import fsdp
from rfho.placement.layout import devices_of
from rfho.placement.paper import from_functions
from rfho.problem import Problem
from rfho.typing import Hyper, PyTree

_SLOTS = 10
"""States that `Binomial` and `LongReverseHyperGradient` keep where nobody says how many."""

_NOTHING = Rates(math.inf, math.inf, math.inf, 0.0)
_COMPUTED = _NOTHING._replace(products=1.0, effort=1.0)
_SENT = _NOTHING._replace(sending=1.0)
"""Rates of a machine whose seconds are operations, and of one whose seconds are bytes sent."""


class Device(NamedTuple):
    """What is said of a device; nothing of it is measured.

    Attributes:
        memory: bytes.
        flops: operations per second that a step reaches, not those of a data sheet.
        bandwidth: bytes per second that it sends to others.
    """

    memory: float | None = None
    flops: float | None = None
    bandwidth: float | None = None


class Need(NamedTuple):
    """What one method needs.

    Attributes:
        method: how the hypergradient is computed.
        memory: bytes on each device beside the problem's own arrays.
        tape: how many of them are the tape.
        host: bytes in the host's memory for each device: the tape, or states on a shelf.
        flops: operations of one hypergradient, on all devices together.
        sent: bytes that each device sends for it.
        time: in plain training runs, by ``flops``.
        compiled: what the compiler says of ``memory`` for the whole program, of a segment for methods that are
            driven from Python; None where it was not asked, or has but one memory for tape and device.
    """

    method: AbstractHyperGradient
    memory: int
    tape: int
    host: int
    flops: float
    sent: float
    time: float
    compiled: int | None = None


class Plan(NamedTuple):
    """What a hypergradient needs by method; prints as a table.

    Attributes:
        needs: one for each method.
        devices: how many there are.
        horizon: T.
        parameters: how many numbers are trained.
        on_each: bytes on a device of parameters and of slots.
        device: what was said of one.
    """

    needs: tuple[Need, ...]
    devices: int
    horizon: int
    parameters: int
    on_each: tuple[int, int]
    device: Device

    def seconds(self, need: Need) -> float | None:
        """Of one hypergradient: computing, then sending, one after the other; None where rates are not said."""
        flops, bandwidth = self.device.flops, self.device.bandwidth
        if flops is None or (bandwidth is None and need.sent):
            return None
        return need.flops / self.devices / flops + need.sent / (bandwidth or math.inf)

    def __str__(self) -> str:
        weights, slots = map(as_bytes, self.on_each)
        title = (
            f"{self.parameters:,} parameters, {self.horizon:,} steps, devices: {self.devices}; on each "
            f"{weights} of parameters and {slots} of slots"
        )
        heads = ["tape", "memory", "host", "FLOPs", "sent", "plain runs"]
        rows = [[tree.as_code(need.method), *self._figures(need)] for need in self.needs]
        heads += [name for name, there in zip(*self._further(), strict=True) if there]
        columns = list(zip(["", *heads], *rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in zip(*columns, strict=True)
        ]
        return "\n".join([title, *lines])

    def _further(self) -> tuple[list[str], list[bool]]:
        timed = any(self.seconds(need) is not None for need in self.needs)
        checked = any(need.compiled is not None for need in self.needs)
        return ["fits", "hours", "compiled"], [self.device.memory is not None, timed, checked]

    def _figures(self, need: Need) -> list[str]:
        host = as_bytes(need.host) if need.host else "-"
        figures = [as_bytes(need.tape), as_bytes(need.memory), host]
        figures += [f"{need.flops:.2e}", as_bytes(need.sent), f"{need.time:.1f}"]
        seconds = self.seconds(need)
        fits = "yes" if need.memory <= (self.device.memory or 0) else "no"
        hours = "-" if seconds is None else f"{seconds / 3600:,.1f}"
        said = "-" if need.compiled is None else as_bytes(need.compiled)
        shown = zip((fits, hours, said), self._further()[1], strict=True)
        return figures + [figure for figure, there in shown if there]


def plan(
    problem: Problem,
    hyper: Hyper,
    methods: Sequence[AbstractHyperGradient] | None = None,
    *,
    mesh: Mesh | None = None,
    placement: Callable[[Problem, Mesh], Problem] = fsdp,
    domain: PyTree = Reals(),
    device: Device = Device(),
    check: bool = False,
) -> Plan:
    """What a hypergradient of ``problem`` needs of each device, by method; nothing is allocated or trained.

    The tape is known from shapes and from how it is cut. What is needed beside it and what is sent the
    compiler tells for a program of 1009 steps, in seconds whatever the size of the model: on a CPU
    that stands for any number of devices, ``jax.config.update("jax_num_cpu_devices", 512)`` first. That
    compiler sums where others sum and cut (reduce-scatter), which can send half as much, and knows nothing of
    kernels that an accelerator has.

    Args:
        problem: its arrays may be `jax.ShapeDtypeStruct`; a large model's ``init`` is a function.
        hyper: λ, likewise.
        methods: `ReverseHyperGradient` under any policy, and `LongReverseHyperGradient`; by default those
            under each policy that the dynamics have.
        mesh: of devices, automatic axes, as `jax.make_mesh` gives it; one device by default. It is set while
            the problem is traced, so that its functions may say how arrays lie.
        placement: `rfho.placement.fsdp` or `rfho.placement.data_parallel`.
        domain: as in `rfho.tune`.
        device: what you say of a device; seconds are these rates', not measured, and count no memory traffic.
        check: have the compiler say the memory of each whole program too.

    Returns:
        A `Plan`, which prints as a table.

    Raises:
        TypeError: there is no forecast for a method.
        ValueError: the mesh has explicit axes, or examples do not divide over its devices.

    Example:
        >>> import jax, jax.numpy as jnp, optax, rfho
        >>> def square(w, hyper, batch):
        ...     return jnp.mean((batch @ w - 1) ** 2)
        >>> dynamics = rfho.Descent(
        ...     square, lambda hyper: optax.sgd(hyper["lr"]), lambda hyper: jnp.zeros(1000)
        ... )
        >>> batch = jnp.ones((8, 1000))
        >>> problem = rfho.Problem(dynamics, square, batch, batch, horizon=100)
        >>> all_states = rfho.hyper_gradients.ReverseHyperGradient()
        >>> found = rfho.hyper_gradients.plan(problem, {"lr": 0.1}, [all_states])
        >>> found.needs[0].tape  # 100 gradients; of a square the way back needs no states
        400000
    """
    mesh = _one_device() if mesh is None else mesh
    devices = devices_of(mesh, None, "plan")
    if devices.explicit:
        raise ValueError(
            "plan got a mesh of explicit axes, but it reads how the compiler lays arrays over automatic ones: "
            "write axis_types=(jax.sharding.AxisType.Auto,)"
        )

    def planned(problem: Problem, hyper: Hyper) -> Plan:
        spread = placement(from_functions(problem, devices), mesh)
        moment, free, _ = placed(spread, hyper, domain)
        cut = placement is fsdp
        parts = PartsOnDevices(moment, free, _COMPUTED, devices=devices, cut=cut)
        chosen = _usual(problem) if methods is None else methods
        needs = tuple(_need(parts, method, check=check) for method in chosen)
        params = parts.state.params if hasattr(parts.state, "params") else parts.state
        weights = parts.on_each(params)
        on_each = weights, parts.of_a_state - weights
        numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        return Plan(needs, devices.number, problem.horizon, numbers, on_each, device)

    with jax.set_mesh(mesh):
        return eqx.filter_eval_shape(planned, problem, hyper)


def _usual(problem: Problem) -> list[AbstractHyperGradient]:
    """Reverse mode under every policy that the dynamics have, and in segments of √T steps."""
    segment = max(1, math.isqrt(problem.horizon))
    policies: list[AbstractCheckpoint] = [
        StoreAll(),
        StoreAll(encoding=HalfPrecision()),
        StoreAll(encoding=HostMemory()),
        Recompute(),
        Binomial(min(_SLOTS, problem.horizon)),
    ]
    if problem.dynamics.way(Keep.RESIDUALS).invert is not None:
        policies.append(Anchored())
    in_segments = [
        LongReverseHyperGradient(segment),
        LongReverseHyperGradient(segment, slots=_SLOTS),
    ]
    return [*map(ReverseHyperGradient, policies), *in_segments]


def _need(parts: PartsOnDevices, method: AbstractHyperGradient, *, check: bool) -> Need:
    cost = method.cost(parts)
    policy = getattr(method, "checkpoint", None)
    if cost is None or policy is None:
        raise TypeError(
            f"plan got {tree.as_code(method)}, but it knows ReverseHyperGradient under any policy and "
            "LongReverseHyperGradient"
        )
    bare = parts.on(_SENT)
    sent = method.cost(bare) if bare.plain else None
    need = Need(
        method,
        cost.memory,
        cost.tape,
        cost.host,
        cost.time * parts.plain,
        0.0 if sent is None else sent.time * bare.plain,
        cost.time,
    )
    if not check:
        return need
    steps = min(getattr(method, "segment", parts.problem.horizon), parts.problem.horizon)
    span = Span(0, steps)
    if parts.tape(policy, span)[1] and jax.default_backend() == "cpu":
        return need
    return need._replace(compiled=parts.compiled(policy, span))


def _one_device() -> Mesh:
    return jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
