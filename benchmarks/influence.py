"""``python -m benchmarks.influence``: what 1, 8 and 64 queries about influence cost, beside plain training.

All queries share one training run, its tape, and what of the way back does not depend on them. What cannot be
shared are the products of each adjoint with the model. "least" is the price of 64 in that of one if only
arithmetic took time: it cannot be undercut where one query keeps the machine busy already.
`docs/how-to/influence.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho
from benchmarks.problems import images
from rfho._programs.roofline import work_of
from rfho.attribution import weighted
from rfho.attribution.examples import examples_of
from rfho.attribution.plan import planned
from rfho.attribution.sweep import Asked, blank, swept
from rfho.dynamics import Keep

QUERIES = (1, 8, 64)
POLICY = rfho.StoreAll()
ROUNDS = 3


class Case(NamedTuple):
    """A model, how it is trained, and for how long."""

    name: str
    sizes: tuple[int, ...]
    examples: int
    batch: int | None
    optim: optax.GradientTransformation
    horizon: int


CASES = (
    Case("softmax 784-10, all 5000", (784, 10), 5000, None, optax.sgd(0.1), 20),
    Case("softmax 64-10, batch 32", (64, 10), 1000, 32, optax.sgd(0.1), 200),
    Case("network 20-20-10, batch 16", (20, 20, 10), 1000, 16, optax.sgd(0.1, 0.9), 200),
    Case("network 784-128-64-10, batch 64", (784, 128, 64, 10), 5000, 64, optax.sgd(0.01, 0.9), 40),
)


def asked_of(case: Case, queries: int) -> Asked:
    """Losses on so many examples, of a model trained on weighted ones."""
    rng = np.random.default_rng(0)
    x, y = data(case, case.examples, seed=1)

    def start(i: int, o: int) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(rng.normal(size=(i, o)) / np.sqrt(i), jnp.float32), jnp.zeros(o)

    def each(params: Any, hyper: Any, batch: Any) -> jax.Array:
        hidden, labels = batch
        *layers, (weights, bias) = params
        for a, b in layers:
            hidden = jax.nn.gelu(hidden @ a + b)
        logits = hidden @ weights + bias
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    init = [start(i, o) for i, o in zip(case.sizes[:-1], case.sizes[1:], strict=True)]
    dynamics = rfho.Descent(weighted(each), lambda hyper: case.optim, init)
    train = (x, y) if case.batch is None else rfho.Stream((x, y), case.batch, key=0)
    valid = data(case, queries, seed=2)
    problem = rfho.Problem(dynamics, weighted(each), train, valid, case.horizon)
    return Asked(problem.at(0), None, each, examples_of(train), case.horizon)


def data(case: Case, count: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Images where they fit the model, noise otherwise."""
    if case.sizes[0] == 784:
        x, y = images(count, seed)
        return jnp.asarray(x.reshape(count, -1)), jnp.asarray(y)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, case.sizes[0]))
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(10, size=count))


def main() -> None:
    """Prints a row for each case."""
    head = "".join(f"{f'{number} queries':>13}" for number in QUERIES)
    print(f"{'× plain training':<34}{head}{'64 / 1':>8}{'least':>8}{'chunk':>7}{'MB':>7}")
    for case in CASES:
        plain = seconds(trained, asked_of(case, 1))
        times, plan = [], None
        for number in QUERIES:
            asked = asked_of(case, number)
            plan = planned(asked, checkpoint=POLICY, chunk=None)
            times.append(seconds(influence_of, asked, plan.chunk) / plain)
        row = "".join(f"{time:>13.1f}" for time in times)
        least = least_ratio(asked_of(case, QUERIES[-1]))
        print(
            f"{case.name:<34}{row}{times[-1] / times[0]:>8.1f}{least:>8.1f}{plan.chunk:>7}"
            f"{plan.memory / 1e6:>7.0f}",
            flush=True,
        )


@eqx.filter_jit
def trained(asked: Asked) -> Any:
    """Plain training."""
    step = lambda t, state: asked.problem.step(state, None, t)  # noqa: E731
    return jax.lax.fori_loop(0, asked.horizon, step, asked.problem.init(None))


@eqx.filter_jit
def influence_of(asked: Asked, chunk: int) -> Any:
    """The influence of all examples on all queries."""
    return swept(asked, jnp.ones(asked.examples.number), checkpoint=POLICY, chunk=chunk)


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of a call, the median of some, without its compilation."""
    jax.block_until_ready(function(*arguments))
    found = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        jax.block_until_ready(function(*arguments))
        found.append(time.process_time() - begin)
    return statistics.median(found)


def least_ratio(asked: Asked) -> float:
    """Matrix products of all queries over those of one, in a step and its way back."""
    number = jax.eval_shape(asked.answers, jax.eval_shape(asked.problem.init, None)).shape[0]
    state = jax.eval_shape(asked.problem.init, None)
    weights = jnp.ones(asked.examples.number)
    chain = asked.chain(weights, Keep.GRADIENTS)
    t = jax.ShapeDtypeStruct((), jnp.int32)
    _, memory = jax.eval_shape(chain.remember, state, t)

    def operations(count: int) -> float:
        cotangents = jax.eval_shape(lambda s: blank(s, weights, count), state)
        back = work_of(chain.pull_back, cotangents, state, memory, t)
        loads = (*work_of(chain.remember, state, t).loads, *back.loads)
        return sum(load.times * load.products for load in loads)

    return operations(number) / operations(1)


if __name__ == "__main__":
    main()
