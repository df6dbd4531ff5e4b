"""P1 to P3 in PyTorch: unrolled by hand, by torch.func, compiled, with higher, TorchOpt and Betty.

Runs in an environment that has PyTorch and not rfho: ``python torch_peers.py PROBLEMS.npz RESULTS.json``.
Every program returns the hypergradient; in float64 it is compared with the one in the file. After each round it
writes ``turn`` and the name of the problem, and goes on when a line comes in: so others take turns with it.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore")
torch.set_num_threads(1)


class Problem:
    """Arrays of one problem as tensors."""

    def __init__(self, arrays: Any, name: str, dtype: torch.dtype) -> None:
        self.name, self.dtype = name, dtype
        tensors = {
            key[len(name) :]: torch.as_tensor(arrays[key])
            for key in arrays.files
            if key.startswith(name + "[")
        }
        self.arrays = {
            key: value.to(dtype) if value.is_floating_point() else value.long()
            for key, value in tensors.items()
        }

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def group(self, prefix: str) -> list[torch.Tensor]:
        """All tensors below ``prefix``, in the order of the file."""
        return [self[key].clone() for key in self.arrays if key.startswith(prefix)]


def p1_loss(p: Problem, w: list[torch.Tensor], h: list[torch.Tensor], t: int) -> torch.Tensor:
    b, weight = w
    logits = p["['train'][0]"] @ weight.T + b
    each = F.cross_entropy(logits, p["['train'][1]"], reduction="none")
    return (torch.sigmoid(h[0]) * each).mean()


def p1_objective(p: Problem, w: list[torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(p["['valid'][0]"] @ w[1].T + w[0], p["['valid'][1]"])


def p2_logits(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = torch.tanh(x @ w[0].T + w[1])
    x = torch.tanh(x @ w[2].T + w[3])
    return x @ w[4].T + w[5]


def p2_loss(p: Problem, w: list[torch.Tensor], h: list[torch.Tensor], t: int) -> torch.Tensor:
    row = p["['index']"][t]
    x, y = p["['train'][0]"][row], p["['train'][1]"][row]
    penalty = sum((w[i] ** 2).sum() for i in (0, 2, 4))
    return F.cross_entropy(p2_logits(w, x), y) + 0.5 * h[0] * penalty


def p2_objective(p: Problem, w: list[torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(p2_logits(w, p["['valid'][0]"]), p["['valid'][1]"])


def p3_logits(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.permute(0, 3, 1, 2)
    for kernel, bias in ((w[0], w[1]), (w[2], w[3])):
        # Our patches are (row, column, channel); PyTorch's kernels are (out, channel, row, column).
        shaped = kernel.reshape(3, 3, x.shape[1], -1).permute(3, 2, 0, 1)
        x = F.relu(F.conv2d(x, shaped, bias, stride=2, padding=1))
    return x.permute(0, 2, 3, 1).reshape(len(x), -1) @ w[4] + w[5]


def p3_loss(p: Problem, w: list[torch.Tensor], h: list[torch.Tensor], t: int) -> torch.Tensor:
    row = p["['index']"][t]
    x, y = p["['train'][0]"][row], p["['train'][1]"][row]
    each = F.cross_entropy(p3_logits(w, x), y, reduction="none")
    return (torch.sigmoid(h[-1][p["['train'][2]"][row]]) * each).mean()


def p3_objective(p: Problem, w: list[torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(p3_logits(w, p["['valid'][0]"]), p["['valid'][1]"])


def sgd(w: Any, g: Any, slots: Any, h: Any, t: int) -> tuple[Any, Any]:
    return [a - 0.1 * b for a, b in zip(w, g, strict=True)], slots


def momentum(w: Any, g: Any, slots: Any, h: Any, t: int) -> tuple[Any, Any]:
    slots = [b + h[2] * m for b, m in zip(g, slots, strict=True)]
    return [a - torch.exp(h[1]) * m for a, m in zip(w, slots, strict=True)], slots


def adam(w: Any, g: Any, slots: Any, h: Any, t: int) -> tuple[Any, Any]:
    n, new, after = len(w), [], []
    rates = [h[0], h[0], h[1], h[1], h[2], h[2]]
    for i in range(n):
        m = 0.9 * slots[i] + 0.1 * g[i]
        v = 0.999 * slots[n + i] + 0.001 * g[i] ** 2
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        after.append(w[i] - torch.exp(rates[i]) * m_hat / (torch.sqrt(v_hat + 1e-8) + 1e-8))
        new.append((m, v))
    return after, [m for m, _ in new] + [v for _, v in new]


# Hyperparameters in the order of the file: dictionaries are sorted by key.
SETUPS = {
    "P1": (p1_loss, p1_objective, sgd, 50, 0),
    "P2": (p2_loss, p2_objective, momentum, 200, 1),
    "P3": (p3_loss, p3_objective, adam, 50, 2),
}


def start(p: Problem) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    w, h = p.group("['params']"), p.group("['hyper']")
    _, _, _, _, copies = SETUPS[p.name]
    return w, h, [torch.zeros_like(a) for _ in range(copies) for a in w]


def plain(p: Problem) -> torch.Tensor:
    loss, objective, update, horizon, _ = SETUPS[p.name]
    w, h, slots = start(p)
    for t in range(horizon):
        w = [a.detach().requires_grad_() for a in w]
        g = torch.autograd.grad(loss(p, w, h, t), w)
        with torch.no_grad():
            w, slots = update(w, g, slots, h, t)
    with torch.no_grad():
        return objective(p, w)


def by_hand(p: Problem) -> list[torch.Tensor]:
    loss, objective, update, horizon, _ = SETUPS[p.name]
    w, h, slots = start(p)
    h = [a.requires_grad_() for a in h]
    w = [a.requires_grad_() for a in w]
    for t in range(horizon):
        g = torch.autograd.grad(loss(p, w, h, t), w, create_graph=True)
        w, slots = update(w, g, slots, h, t)
    return list(torch.autograd.grad(objective(p, w), h))


def by_func(p: Problem) -> list[torch.Tensor]:
    loss, objective, update, horizon, _ = SETUPS[p.name]

    def f(h: Any) -> torch.Tensor:
        w, _, slots = start(p)
        for t in range(horizon):
            g = torch.func.grad(lambda w, t=t: loss(p, w, h, t))(w)
            w, slots = update(w, g, slots, h, t)
        return objective(p, w)

    return torch.func.grad(f)(start(p)[1])


def compiled(p: Problem) -> Callable[[], list[torch.Tensor]]:
    """Each step is compiled; the gradient inside it and the way back are traced by torch.func."""
    loss, objective, update, horizon, _ = SETUPS[p.name]

    def one_step(w: Any, slots: Any, h: Any, row: torch.Tensor, t: torch.Tensor) -> Any:
        g = torch.func.grad(lambda w: loss(_Row(p, row), w, h, 0))(w)
        return update(w, g, slots, h, t)

    def back(w: Any, slots: Any, h: Any, row: Any, t: Any, adjoint: Any) -> Any:
        _, pull = torch.func.vjp(lambda w, s, h: one_step(w, s, h, row, t), w, slots, h)
        return pull(adjoint)

    step_c, back_c = torch.compile(one_step), torch.compile(back)

    def run() -> list[torch.Tensor]:
        w, h, slots = start(p)
        tape = []
        rows = p.arrays.get("['index']", torch.zeros(horizon, 1)).long()
        # Tensors of their own: views of one tensor would be compiled again for each offset.
        rows = [row.clone() for row in rows]
        for t in range(horizon):
            tape.append((w, slots))
            w, slots = step_c(w, slots, h, rows[t], torch.tensor(float(t), dtype=p.dtype))
        leaves = [a.detach().requires_grad_() for a in w]
        adjoint = list(torch.autograd.grad(objective(p, leaves), leaves))
        adjoint = (adjoint, [torch.zeros_like(s) for s in slots])
        total = [torch.zeros_like(a) for a in h]
        for t in reversed(range(horizon)):
            w, slots = tape[t]
            time_ = torch.tensor(float(t), dtype=p.dtype)
            aw, aslots, ah = back_c(w, slots, h, rows[t], time_, adjoint)
            adjoint = (list(aw), list(aslots))
            total = [a + b for a, b in zip(total, ah, strict=True)]
        return total

    return run


class _Row:
    """A problem at step 0 whose index row is given: so that every step is one compiled program."""

    def __init__(self, p: Problem, row: torch.Tensor) -> None:
        self.p, self.row = p, row

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.row[None] if key == "['index']" else self.p[key]


class _Net(torch.nn.Module):
    """Parameters in a module, for libraries that want one."""

    def __init__(self, w: list[torch.Tensor]) -> None:
        super().__init__()
        self.w = torch.nn.ParameterList([torch.nn.Parameter(a.clone()) for a in w])

    def forward(self, function: Callable[[list[torch.Tensor]], torch.Tensor]) -> torch.Tensor:
        return function(list(self.w))


def _optimiser(p: Problem, net: _Net, h: list[torch.Tensor]) -> tuple[Any, dict[str, list[Any]]]:
    """PyTorch's own optimiser, and the settings of its groups that are hyperparameters."""
    if p.name == "P1":
        return torch.optim.SGD(net.parameters(), lr=0.1), {}
    if p.name == "P2":
        inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        return inner, {"lr": [torch.exp(h[1])], "momentum": [h[2]]}
    groups = [{"params": list(net.w)[i : i + 2]} for i in (0, 2, 4)]
    inner = torch.optim.Adam(groups, lr=1e-3, eps=1e-8)
    return inner, {"lr": [torch.exp(a) for a in h[:3]]}


def by_higher(p: Problem) -> list[torch.Tensor]:
    import higher

    loss, objective, _, horizon, _ = SETUPS[p.name]
    w, h, _ = start(p)
    h = [a.requires_grad_() for a in h]
    net = _Net(w)
    inner, override = _optimiser(p, net, h)
    with higher.innerloop_ctx(net, inner, override=override) as (functional, optim):
        for t in range(horizon):
            optim.step(functional(lambda w, t=t: loss(p, w, h, t)))
        value = functional(lambda w: objective(p, w))
        return list(torch.autograd.grad(value, h))


def by_betty(p: Problem) -> list[torch.Tensor]:
    """As its IterativeProblem unrolls: the optimiser steps once on zero gradients before it is patched."""
    from betty.optim import patch_optimizer

    loss, objective, _, horizon, _ = SETUPS[p.name]
    w, h, _ = start(p)
    h = [a.requires_grad_() for a in h]
    net = _Net(w)
    inner, override = _optimiser(p, net, h)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inner.step()
    optim = patch_optimizer(inner, net)
    for key, values in override.items():
        for group, value in zip(optim.param_groups, values, strict=True):
            group[key] = value
    now: Any = tuple(net.parameters())
    for t in range(horizon):
        gradient = torch.autograd.grad(loss(p, list(now), h, t), now, create_graph=True)
        for parameter, slope in zip(now, gradient, strict=True):
            parameter.grad = slope
        now = optim.step(now)
    return list(torch.autograd.grad(objective(p, list(now)), h))


def by_torchopt(p: Problem) -> list[torch.Tensor]:
    import torchopt

    loss, objective, _, horizon, _ = SETUPS[p.name]
    if p.name == "P2":
        raise NotImplementedError("its MetaSGD takes neither rate nor momentum as a tensor")
    w, h, _ = start(p)
    h = [a.requires_grad_() for a in h]
    net = _Net(w)
    if p.name == "P1":
        optim = torchopt.MetaSGD(net, lr=0.1)
    else:
        optim = torchopt.MetaAdam(net, lr=1e-3, eps=1e-8, eps_root=1e-8)
    for t in range(horizon):
        optim.step(net(lambda w, t=t: loss(p, w, h, t)))
    value = net(lambda w: objective(p, w))
    # A rate per layer is beyond it: the example weights are what it can learn on P3.
    wanted = h if p.name == "P1" else h[-1:]
    return list(torch.autograd.grad(value, wanted))


def programs(p: Problem) -> dict[str, Callable[[], Any]]:
    return {
        "unrolled by hand": lambda: by_hand(p),
        "torch.func": lambda: by_func(p),
        "torch.compile": compiled(p),
        "higher": lambda: by_higher(p),
        "TorchOpt": lambda: by_torchopt(p),
        "Betty": lambda: by_betty(p),
    }


def difference(p: Problem, ours: list[torch.Tensor]) -> float:
    """Largest relative difference from the hypergradient in the file, over its leaves."""
    theirs = p.group("['hypergradient']")[-len(ours) :]
    return max(float((a.detach() - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


def clock(function: Callable[[], Any]) -> float:
    function()  # as for ours, the second of two runs counts
    begin = time.process_time()
    function()
    return time.process_time() - begin


def measured(arrays: Any, name: str, rounds: int) -> list[dict[str, Any]]:
    # Programs compiled for another problem count against the limit beyond which nothing is compiled.
    torch.compiler.reset()
    exact, fast = Problem(arrays, name, torch.float64), Problem(arrays, name, torch.float32)
    reference, rows = programs(exact), []
    timed = {"plain training": lambda: plain(fast), **programs(fast)}
    for program in list(timed):
        if program == "plain training":
            continue
        try:
            error = difference(exact, reference[program]())
        except Exception as why:
            print(name, program, "left out:", type(why).__name__, str(why)[:200], flush=True)
            del timed[program]
            continue
        rows.append({"problem": name, "name": program, "relative_difference": error})
    times: dict[str, list[float]] = {program: [] for program in timed}
    for _ in range(rounds):
        for program, function in timed.items():
            times[program].append(clock(function))
        print("turn", name, flush=True)
        sys.stdin.readline()
    base = statistics.median(times["plain training"])
    for row in rows:
        row["seconds"] = statistics.median(times[row["name"]])
        row["ratio"] = row["seconds"] / base
        print(row, flush=True)
    return [{"problem": name, "name": "plain training", "seconds": base, "ratio": 1.0}, *rows]


def main(problems: str, results: str, *names: str) -> None:
    arrays = np.load(problems)
    rows = [row for name in names or SETUPS for row in measured(arrays, name, rounds=3)]
    with open(results, "w") as file:
        json.dump({"part": "peers", "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
