"""The command plan: what a hypergradient of a file's problem needs of each device, on devices that are simulated."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from rfho.hyper_gradients import Device, plan
from rfho.placement import data_parallel, fsdp
from rfho.runs.case import CaseError, did_you_mean, read_case, saying_where, started

_PLACEMENTS: dict[str, Callable[..., Any]] = {
    "fsdp": fsdp,
    "data_parallel": data_parallel,
}


def plan_case(
    target: str,
    assignments: Sequence[str],
    *,
    mesh: str | None,
    placement: str,
    device: Device,
    check: bool,
) -> int:
    """Prints what a hypergradient of a file's problem needs by method.

    Args:
        target: ``FILE.py:problem``, see `rfho.runs.case`.
        assignments: other values of hyperparameters, ``NAME=NUMBER``.
        mesh: its axes, ``NAME=COUNT,NAME=COUNT``; the first device there is where it is None.
        placement: by its name.
        device: what is said of one.
        check: whether the compiler is asked about whole programs.

    Returns:
        The exit code 0.

    Raises:
        CaseError: the file has no problem that can be planned, or the mesh cannot be read or made.
    """
    begun = time.perf_counter()
    place = _placement(placement)
    # Before the file runs: the number of devices is fixed when JAX starts.
    made = None if mesh is None else _simulated(_axes(mesh))
    case = read_case(target)
    hyper = started(case.hyper, assignments)
    with saying_where(target):
        found = plan(
            case.problem,
            hyper,
            mesh=made,
            placement=place,
            domain=case.domain,
            device=device,
            check=check,
        )
    took = time.perf_counter() - begun
    sys.stdout.write(f"{found}\nplanned in {took:.0f} s; nothing was allocated or trained\n")
    return 0


def _placement(name: str) -> Callable[..., Any]:
    if name not in _PLACEMENTS:
        hint, known = did_you_mean(name, tuple(_PLACEMENTS)), " and ".join(_PLACEMENTS)
        raise CaseError(f"unknown placement {name!r}: {hint}there are {known}")
    return _PLACEMENTS[name]


def _axes(text: str) -> dict[str, int]:
    """The axes of a mesh by their names."""
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = (word.strip() for word in part.partition("="))
        if not name.isidentifier() or not count.isdecimal() or int(count) < 1 or name in axes:
            raise CaseError(f"cannot read --mesh {text!r}: write data=8, or data=8,model=8")
        axes[name] = int(count)
    return axes


def _simulated(axes: dict[str, int]) -> Mesh:
    number = math.prod(axes.values())
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError as error:
        if len(jax.devices()) < number:
            raise CaseError(
                f"{number} devices cannot be simulated, as JAX has started with {len(jax.devices())}: call plan "
                "in a program of its own"
            ) from error
    automatic = (AxisType.Auto,) * len(axes)
    devices = jax.devices()[:number]
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=automatic, devices=devices)
