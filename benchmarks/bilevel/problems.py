"""The four problems of benchmark_bilevel (arXiv 2201.13409): loss g(w, x; i), objective f(w, x; j), rates to try.

The data are in the folder that RFHO_DATA names. Examples are in a random order once for all; batch i is the i-th 64
of them.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import rfho
from benchmarks.bilevel.peers import Rates, Sides
from rfho.datasets.idx import read_idx

BATCH = 64


class Batches(eqx.Module):
    """Number i of the batches of some examples, or a random one for a step."""

    arrays: tuple[jax.Array, ...]
    size: int = eqx.field(static=True, default=BATCH)

    @property
    def number(self) -> int:
        return len(self.arrays[0]) // self.size

    def sized(self, size: int) -> "Batches":
        """The same examples in batches of another size, or all in one if there are fewer."""
        return Batches(self.arrays, min(size, len(self.arrays[0])))

    def batch(self, i: Any) -> tuple[jax.Array, ...]:
        if self.number == 1:
            return self.arrays
        start = i * self.size
        return tuple(jax.lax.dynamic_slice_in_dim(a, start, self.size) for a in self.arrays)

    def listed(self) -> rfho.Indexed:
        """The same batches with their numbers, in a new order in every epoch."""
        index = np.arange(self.number * self.size).reshape(-1, self.size)
        return rfho.Indexed(self.arrays, index, key=0)

    def __call__(self, t: Any) -> tuple[jax.Array, ...]:
        key = jax.random.fold_in(jax.random.key(0), t)
        return self.batch(jax.random.randint(key, (), 0, self.number))


class Task(NamedTuple):
    """What is raced.

    Attributes:
        train, valid: the examples of the loss and of the objective.
        loss, objective: of parameters, outer variable and batch.
        w, x: where both begin.
        rates: to choose from.
        test: examples on which the error is told, where h cannot be had within seconds.
        bounds: of the outer variable, for optimisers that might run away.
        curvatures: between which those of the loss lie, where h is to be had by gradient descent.
    """

    train: Batches
    valid: Batches
    loss: Callable[[Any, Any, Any], jax.Array]
    objective: Callable[[Any, Any, Any], jax.Array]
    w: jax.Array
    x: jax.Array
    rates: tuple[Rates, ...]
    test: Batches | None = None
    bounds: tuple[float, float] = (-12.0, 1.0)
    curvatures: tuple[float, float] | None = None

    def sized(self, size: int) -> "Task":
        """The same with batches of another size."""
        return self._replace(train=self.train.sized(size), valid=self.valid.sized(size))

    @property
    def sides(self) -> Sides:
        """What the opponents are given."""
        numbers = self.train.number, self.valid.number
        return Sides(self.train.batch, self.valid.batch, numbers, self.loss, self.objective)


def grid(inner: tuple[float, ...], outer: tuple[float, ...]) -> tuple[Rates, ...]:
    """Every pair."""
    return tuple(Rates(one, other) for one in inner for other in outer)


def shuffled(*arrays: np.ndarray, seed: int = 0) -> Batches:
    """Rows in a random order, in single precision."""
    order = np.random.default_rng(seed).permutation(len(arrays[0]))
    cast = lambda a: a.astype(np.float32 if a.dtype.kind == "f" else np.int32)  # noqa: E731
    return Batches(tuple(jnp.asarray(cast(a[order])) for a in arrays))


def folder() -> Path:
    """Where the data are."""
    if "RFHO_DATA" not in os.environ:
        raise SystemExit("the data are looked for in the folder that RFHO_DATA names: set it")
    return Path(os.environ["RFHO_DATA"])


def standard(x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Every feature with mean 0 and deviation 1 in the first, and the others likewise."""
    mean, deviation = x.mean(0), x.std(0)
    return [(a - mean) / np.where(deviation > 0, deviation, 1) for a in (x, *others)]


def ijcnn1() -> Task:
    """Logistic regression, a penalty exp(x_j) for each of 22 features; 49,990 and 91,701 examples."""
    with np.load(folder() / "ijcnn1.npz") as file:
        sides = [(file[f"x_{part}_e6"] / 1e6, file[f"y_{part}"]) for part in ("train", "test")]
    train, valid = (shuffled(x, np.where(y > 0, 1.0, -1.0)) for x, y in sides)

    def objective(w: Any, x: Any, batch: Any) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-batch[1] * (batch[0] @ w)))

    def loss(w: Any, x: Any, batch: Any) -> jax.Array:
        return objective(w, x, batch) + 0.5 * jnp.sum(jnp.exp(x) * w**2)

    zero, rates = jnp.zeros(22), (*grid((0.5, 0.1), (1.0, 10.0)), Rates(0.1, 0.1))
    return Task(train, valid, loss, objective, zero, zero, rates)


def entropies(w: Any, batch: Any) -> jax.Array:
    """Of the linear model of each class, for each example."""
    scores = batch[0] @ w
    own = jnp.take_along_axis(scores, batch[1][:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(scores, axis=1) - own


def covtype() -> Task:
    """Softmax regression, a penalty exp(x_c) for each of 7 classes; 59,495 and 14,874 of 92,962 examples."""
    with np.load(folder() / "covtype_92k.npz") as z:
        parts = [z["continuous_e6"] / 1e6, np.eye(4)[z["wilderness"]], np.eye(40)[z["soil"]]]
        x, y = np.concatenate(parts, axis=1), z["y"].astype(int) - 1
    order = np.random.default_rng(2442).permutation(len(x))
    parts = np.split(order, [59495, 59495 + 14874])
    scaled = standard(*(x[part] for part in parts))
    sides = [shuffled(one, y[part]) for one, part in zip(scaled, parts, strict=True)]

    def objective(w: Any, x: Any, batch: Any) -> jax.Array:
        return jnp.mean(entropies(w, batch))

    def loss(w: Any, x: Any, batch: Any) -> jax.Array:
        return objective(w, x, batch) + 0.5 * jnp.sum(jnp.exp(x) * w**2)

    rates = (Rates(0.1, 1.0), Rates(0.03, 10.0))
    w, x = jnp.zeros((54, 7)), jnp.zeros(7)
    return Task(*sides[:2], loss, objective, w, x, rates, sides[2])


def cleaning() -> Task:
    """A weight σ(x_i) for each of 20,000 digits, half of whose labels are drawn anew; 5000 digits are clean."""
    at = folder() / "mnist"

    def read(part: str) -> tuple[np.ndarray, np.ndarray]:
        images = read_idx(at / f"{part}-images-idx3-ubyte.gz", dimensions=3)
        labels = read_idx(at / f"{part}-labels-idx1-ubyte.gz", dimensions=1)
        return images.reshape(-1, 784).astype(float), labels.astype(int)

    (images, labels), (others, other_labels) = read("train"), read("t10k")
    rng = np.random.default_rng(32)
    order = rng.permutation(len(images))
    train, valid = order[:20000], order[20000:25000]
    wrong = np.where(rng.random(20000) < 0.5, rng.integers(0, 10, 20000), labels[train])
    x_train, x_valid, x_test = standard(images[train], images[valid], others)
    noisy = shuffled(x_train, wrong)
    # Each example knows which of the weights is its own.
    noisy = Batches((*noisy.arrays, jnp.arange(20000)))
    clean, test = shuffled(x_valid, labels[valid]), shuffled(x_test, other_labels)

    def objective(w: Any, x: Any, batch: Any) -> jax.Array:
        return jnp.mean(entropies(w, batch))

    def loss(w: Any, x: Any, batch: Any) -> jax.Array:
        weights = jax.nn.sigmoid(x[batch[2]])
        return jnp.mean(weights * entropies(w, batch)) + 0.2 * jnp.sum(w**2)

    rates = grid((0.4, 0.1, 0.03, 0.01), (3000.0, 30000.0))
    w, x = jnp.zeros((784, 10)), jnp.zeros(20000)
    # The penalty adds 0.4; the largest at weights of a half is 2.44, and at most doubles.
    return Task(noisy, clean, loss, objective, w, x, rates, test, (-12.0, 12.0), (0.4, 4.9))


def _factors(rng: np.random.Generator, count: int, at_w: int, at_x: int) -> list[np.ndarray]:
    """a, b, c, d, e, f of ½ (a·w)² + ½ (b·x)² + (c·x)(d·w) + e·w + f·x, for each example."""
    low = 0.1

    def correlated(size: int, spectrum: np.ndarray) -> np.ndarray:
        basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
        return rng.normal(size=(count, size)) @ (basis * np.sqrt(spectrum)) @ basis.T

    a = correlated(at_w, np.geomspace(low, 1, at_w))
    b = correlated(at_x, np.append(0, np.geomspace(low, 1, at_x - 1)))
    z = rng.normal(size=(count, at_w))
    left, _ = np.linalg.qr(rng.normal(size=(at_x, at_x)))
    right, _ = np.linalg.qr(rng.normal(size=(at_w, at_w)))
    c, d = 0.1 * z[:, :at_x] @ left.T, z @ right.T
    return [a, b, c, d, rng.normal(size=(count, at_w)), rng.normal(size=(count, at_x))]


def quadratic(
    examples: tuple[int, int] = (32768, 1024), sizes: tuple[int, int] = (100, 10)
) -> Task:
    """32,768 and 1024 random quadratics of 100 parameters and 10 outer variables, each of rank 1."""
    rng = np.random.default_rng(2442)
    train, valid = (shuffled(*_factors(rng, count, *sizes)) for count in examples)

    def both(w: Any, x: Any, batch: Any) -> jax.Array:
        a, b, c, d, e, f = batch
        squares = 0.5 * (a @ w) ** 2 + 0.5 * (b @ x) ** 2
        return jnp.mean(squares + (c @ x) * (d @ w) + e @ w + f @ x)

    rates = grid((0.1, 0.01), (0.01, 0.1))
    w, x = jnp.zeros(sizes[0]), jnp.zeros(sizes[1])
    return Task(train, valid, both, both, w, x, rates)


TASKS: dict[str, Callable[[], Task]] = {
    "quadratic": quadratic,
    "ijcnn1": ijcnn1,
    "covtype": covtype,
    "cleaning": cleaning,
}
