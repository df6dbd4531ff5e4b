"""What many calls and many outer steps leave behind in a process: programs, memory, descriptors.

    python growth.py calls COUNT
    python growth.py steps COUNT [tune|iterate|many|online|run] [FOLDER]

Prints programs compiled after the first call, bytes of resident memory and descriptors more, for each call or
step, over the second half.
"""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import rfho

COMPILED = "/jax/core/compile/backend_compile_duration"
programs: list[float] = []


def count(event: str, seconds: float, **_: Any) -> None:
    if event == COMPILED:
        programs.append(seconds)


def loss(w, hyper, batch):
    return (w - hyper["target"]) ** 2


def objective(w, hyper, batch):
    return (w - 1.0) ** 2


def problem() -> rfho.Problem:
    """Made anew at every call, as a user's function would."""
    dynamics = rfho.Descent(loss, sgd, jnp.zeros(()))
    return rfho.Problem(dynamics, objective, horizon=2)


def sgd(hyper) -> optax.GradientTransformation:
    return optax.sgd(0.25)


OPTIM = optax.adam(1e-3)


def resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def calls(total: int) -> tuple[int, float, int]:
    """Programs after the first call; bytes and descriptors for each call of the second half."""
    found: list[tuple[int, int, int]] = []
    for i in range(total):
        rfho.tune(problem(), {"target": 0.5}, optim=OPTIM, steps=2)
        if i in (0, total // 2):
            found.append((len(programs), resident(), descriptors()))
    found.append((len(programs), resident(), descriptors()))
    half = total - 1 - total // 2
    (first, _, _), (_, before, opened), (last, after, open_now) = found
    return last - first, (after - before) / half, open_now - opened


class Half(rfho.Listener):
    """Looks at memory at half of the way and at the end."""

    def __init__(self, total: int) -> None:
        self.total, self.seen = total, []

    def step(self, report: rfho.outer.Report) -> None:
        if report.member == 0 and report.step in (self.total // 2, self.total):
            self.seen.append((len(programs), resident(), descriptors()))


def driven(kind: str, total: int, folder: list[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A verb with its problem, and how it is to be called."""
    given, start = problem(), {"target": 0.5}
    if kind == "many":
        starts = [start, {"target": 0.1}]
        return functools.partial(rfho.tune_many, given, starts, optim=OPTIM), {}
    if kind == "iterate":
        return lambda **how: exhaust(rfho.iterate(given, start, optim=OPTIM, **how)), {}
    tune = functools.partial(rfho.tune, given, start, optim=OPTIM)
    if kind == "online":
        long = rfho.Problem(given.dynamics, objective, horizon=total)
        method = rfho.RealTimeHyperGradient(every=1)
        tune = functools.partial(rfho.tune, long, start, optim=OPTIM, method=method)
    return tune, {"run": rfho.Run(folder[0])} if folder else {}


def exhaust(reports: Iterable[Any]) -> None:
    """Takes all, and keeps none."""
    for _ in reports:
        pass


def steps(total: int, drive: Callable[..., Any], how: dict[str, Any]) -> tuple[int, float, int]:
    """Programs, bytes and descriptors for each step of the second half."""
    half = Half(total)
    drive(listeners=[half], **({"steps": total} | how))
    (programs_before, before, opened), (programs_after, after, open_now) = half.seen
    return (
        programs_after - programs_before,
        (after - before) / (total - total // 2),
        open_now - opened,
    )


def main() -> None:
    warnings.simplefilter("ignore")
    jax.monitoring.register_event_duration_secs_listener(count)
    what, total, *rest = sys.argv[1:]
    if what == "calls":
        print(*calls(int(total)))  # noqa: T201
        return
    kind, *folder = rest or ["tune"]
    print(*steps(int(total), *driven(kind, int(total), folder)))  # noqa: T201


if __name__ == "__main__":
    main()
