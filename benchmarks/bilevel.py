"""``python -m benchmarks.bilevel``: rfho's single-loop methods beside stochastic methods of bilevel optimisation.

ijcnn1 as benchmark_bilevel has it: logistic regression on 49,990 examples, a penalty exp(x_j) for each of its 22
features, the loss on 91,701 other examples as objective, batches of 64 in both. What is told is how far the value
function h(x) = f(w*(x)) is from its minimum after so many CPU seconds of outer steps, without compilation; w* is
found by Newton's method in float64. Every method has the best of the same rates, inner and outer.
The data are ``ijcnn1.npz`` of the folder that RFHO_DATA names; `docs/explanation/bilevel.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.bilevel_peers import PEERS, Peer, Rates, Sides
from rfho.outer.tuner import TunerState

BATCH, SECONDS = 64, (0.5, 1.0, 2.0)
RATES = tuple(Rates(inner, outer) for inner in (0.5, 0.1) for outer in (1.0, 10.0))
SMALLER = tuple(Rates(inner, 0.1) for inner in (0.5, 0.1))
"""For SABA as well, ours and that from the paper, which diverges at the largest."""
MINIMUM = 0.203627
"""Of h within |x| <= 30, by L-BFGS in float64 from the best point that any method has seen."""

NOWHERE = float("inf")
"""The value of an outer variable that is no number any more."""

STRETCH = 500
"""Outer steps between two looks at the clock."""


class Batches(eqx.Module):
    """Number i of the batches of some examples, or a random one for a step."""

    x: jax.Array
    y: jax.Array

    @property
    def number(self) -> int:
        return self.x.shape[0] // BATCH

    def batch(self, i: Any) -> tuple[jax.Array, jax.Array]:
        cut = lambda a: jax.lax.dynamic_slice_in_dim(a, i * BATCH, BATCH)  # noqa: E731
        return cut(self.x), cut(self.y)

    def listed(self) -> rfho.Indexed:
        """The same batches with their numbers, in a new order in every epoch."""
        index = np.arange(self.number * BATCH).reshape(-1, BATCH)
        return rfho.Indexed((self.x, self.y), index, key=0)

    def __call__(self, t: Any) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), t)
        return self.batch(jax.random.randint(key, (), 0, self.number))


def data() -> tuple[Batches, Batches]:
    """Training and validation examples, in a random order once for all."""
    with np.load(Path(os.environ["RFHO_DATA"]) / "ijcnn1.npz") as file:
        sides = [(file[f"x_{part}_e6"] / 1e6, file[f"y_{part}"]) for part in ("train", "test")]
    rng = np.random.default_rng(0)
    found = []
    for x, y in sides:
        order = rng.permutation(len(x))
        signs = np.where(y[order] > 0, 1.0, -1.0)
        found.append(Batches(jnp.asarray(x[order], jnp.float32), jnp.asarray(signs, jnp.float32)))
    return found[0], found[1]


def logistic(w: jax.Array, batch: tuple[jax.Array, ...]) -> jax.Array:
    """The objective."""
    return jnp.mean(jax.nn.softplus(-batch[1] * (batch[0] @ w)))


def penalised(w: jax.Array, x: jax.Array, batch: tuple[jax.Array, ...]) -> jax.Array:
    """The loss."""
    return logistic(w, batch) + 0.5 * jnp.sum(jnp.exp(x) * w**2)


def ours(inner: float) -> dict[str, rfho.hyper_gradients.AbstractHyperGradient]:
    """Methods by the names of the papers that they come from."""
    return {
        "rfho: SingleLoop (SOBA)": rfho.SingleLoopHyperGradient(inner),
        "rfho: SingleLoop, average 0.1 (MA-SOBA)": rfho.SingleLoopHyperGradient(inner, average=0.1),
        "rfho: Alternating (AmIGO)": rfho.AlternatingHyperGradient(inner, every=10, products=10),
        "rfho: VarianceReduced (SABA)": rfho.VarianceReducedHyperGradient(inner),
        "rfho: FirstOrder (F2SA)": rfho.FirstOrderHyperGradient(penalty=10.0, every=10),
        "rfho: DynamicBarrier (BOME)": rfho.DynamicBarrierHyperGradient(inner, every=10),
    }


def as_peer(method: Any, rates: Rates, train: Batches, valid: Batches) -> Peer:
    """A method of rfho in the form of the opponents."""

    def objective(w: Any, hyper: Any, batch: Any) -> jax.Array:
        return logistic(w, batch)

    size = train.x.shape[1]
    dynamics = rfho.Descent(penalised, lambda hyper: optax.sgd(rates.inner), jnp.zeros(size))
    reduced = isinstance(method, rfho.VarianceReducedHyperGradient)
    data = (train.listed(), valid.listed()) if reduced else (train, rfho.Fresh(valid))
    problem = rfho.Problem(dynamics, objective, *data, horizon=10)
    tuner = rfho.Tuner(method, optax.sgd(rates.outer))
    return Peer(
        lambda x, w: tuner.init(problem, x), lambda carry, key, rates: tuner.step(problem, carry)[0]
    )


def raced(peer: Peer, size: int, rates: Rates) -> tuple[list[np.ndarray], int]:
    """The outer variable after so many CPU seconds, and the outer steps done."""

    @jax.jit
    def stretch(carry: Any, key: jax.Array) -> Any:
        step = lambda carry, key: (peer.step(carry, key, rates), None)  # noqa: E731
        return jax.lax.scan(step, carry, jax.random.split(key, STRETCH))[0]

    key = jax.random.key(1)
    begin = peer.start(jnp.zeros(size), jnp.zeros(size))
    jax.block_until_ready(stretch(begin, key))
    carry, steps, seen, spent = begin, 0, [], 0.0
    for seconds in SECONDS:
        while spent < seconds:
            clock = time.process_time()
            carry = jax.block_until_ready(stretch(carry, jax.random.fold_in(key, steps)))
            spent += time.process_time() - clock
            steps += STRETCH
        outer = carry.free if isinstance(carry, TunerState) else carry[0]
        seen.append(np.asarray(outer, np.float64))
    return seen, steps


class Value:
    """h(x), by Newton's method in float64 that begins where it last ended."""

    def __init__(self, train: Batches, valid: Batches) -> None:
        self.sides = [tuple(np.asarray(a, np.float64) for a in (s.x, s.y)) for s in (train, valid)]
        self.w = np.zeros(train.x.shape[1])

    def __call__(self, outer: np.ndarray) -> float:
        if not np.isfinite(outer).all():
            return NOWHERE
        (x, y), (vx, vy) = self.sides
        w, weights = self.w, np.exp(np.clip(outer, -30, 30))
        for _ in range(50):
            p = 1 / (1 + np.exp(y * (x @ w)))
            slope = -(x.T @ (y * p)) / len(y) + weights * w
            if np.linalg.norm(slope) < 1e-10:
                break
            curved = (x.T * (p * (1 - p))) @ x / len(y) + np.diag(weights)
            w = w - np.linalg.solve(curved, slope)
        self.w = w
        return float(np.mean(np.logaddexp(0, -vy * (vx @ w))))


def main() -> None:
    """Prints a row for each method."""
    train, valid = data()
    numbers = train.number, valid.number
    sides = Sides(train.batch, valid.batch, numbers, penalised, logistic)
    value, size = Value(train, valid), train.x.shape[1]
    print(f"h at the start: {value(np.zeros(size)) - MINIMUM:.2e} above the minimum")
    head = "".join(f"{f'{seconds:g} s':>10}" for seconds in SECONDS)
    print(f"{'':<42}{head}{'inner':>7}{'outer':>7}{'steps':>10}")
    runs: dict[str, Callable[[Rates], Peer]] = {
        name: lambda rates, name=name: as_peer(ours(rates.inner)[name], rates, train, valid)
        for name in ours(1.0)
    }
    for name, peer in PEERS.items():
        runs[f"{name}, written from its paper"] = lambda rates, peer=peer: peer(sides)
    wanted = sys.argv[1:]
    for name, peer_at in runs.items():
        if wanted and not any(word in name for word in wanted):
            continue
        tried = []
        for rates in (*SMALLER, *RATES) if "SABA" in name else RATES:
            seen, steps = raced(peer_at(rates), size, rates)
            tried.append(([value(one) - MINIMUM for one in seen], rates, steps))
        gaps, rates, steps = min(tried, key=lambda one: one[0][-1])
        row = "".join(f"{gap:>10.1e}" for gap in gaps)
        print(f"{name:<42}{row}{rates.inner:>7g}{rates.outer:>7g}{steps:>10}", flush=True)


if __name__ == "__main__":
    main()
