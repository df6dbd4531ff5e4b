"""Healthy models of many kinds: whatever looks for faults must find none in them.

Each entry of `MODELS` makes a problem and a point. Some hold what a careless check takes for a fault: an
infinity that nobody reads, a stop_gradient that changes nothing, rows that never occur, ties that never
happen, a step that decides.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfho

HORIZON = 5


class Model(NamedTuple):
    """A problem, and a point at which it is healthy."""

    problem: rfho.Problem
    hyper: Any


def data(seed=0, count=8, width=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    return jnp.asarray(x), jnp.asarray(np.sin(x[:, 0]) + 0.1 * rng.normal(size=count))


def normal(*shape, seed=1, scale=0.5):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape))


def sgd(hyper):
    return optax.sgd(hyper["lr"])


def adam(hyper):
    return optax.adam(hyper["lr"])


def fit(forward, params, optim=sgd, hyper=None, *, loss=lambda z: jnp.mean(z**2)):
    """Regression by gradient descent on a forward function ``(params, x, hyper)``."""

    def error(w, hyper, batch):
        x, y = batch
        return loss(forward(w, x, hyper) - y)

    dynamics = rfho.Descent(error, optim, params)
    hyper = {"lr": 0.05} if hyper is None else hyper
    return Model(rfho.Problem(dynamics, error, data(0), data(1), HORIZON), hyper)


def simulated(init, step, objective, hyper, output=lambda s: s):
    """A step written by hand."""
    dynamics = rfho.Dynamics(init, step, output)
    return Model(rfho.Problem(dynamics, objective, data(0), data(1), HORIZON), hyper)


def layers():
    return {"a": normal(3, 4), "b": normal(4, seed=2)}


def two_layers(activation):
    return lambda w, x, hyper: activation(x @ w["a"]) @ w["b"]


def squared_error(w, hyper, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def logistic():
    def forward(w, x, hyper):
        return x @ w

    def loss(w, hyper, batch):
        x, y = batch
        return jnp.mean(jnp.log1p(jnp.exp(-(y - 0.1) * (x @ w)))) + hyper["l2"] * jnp.sum(w**2)

    dynamics = rfho.Descent(loss, sgd, normal(3))
    return Model(rfho.Problem(dynamics, loss, data(0), data(1), HORIZON), {"lr": 0.1, "l2": 0.01})


def rectified():
    return fit(
        two_layers(jax.nn.relu),
        layers(),
        lambda h: optax.sgd(h["lr"], h["mu"]),
        {"lr": 0.05, "mu": 0.8},
    )


def gelu_adamw():
    optim = lambda h: optax.adamw(h["lr"], weight_decay=h["decay"])  # noqa: E731
    return fit(two_layers(jax.nn.gelu), layers(), optim, {"lr": 0.01, "decay": 0.1})


def convolution_with_pooling():
    def forward(w, x, hyper):
        image = jnp.tile(x[:, :, None], (1, 1, 3))[..., None]
        z = jax.lax.conv_general_dilated(
            image, w["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        z = jax.lax.reduce_window(z, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
        return z.reshape(x.shape[0], -1) @ w["b"]

    return fit(forward, {"k": normal(2, 2, 1, 2), "b": normal(8, seed=3)})


def layer_norm():
    def forward(w, x, hyper):
        z = x @ w["a"]
        z = (z - z.mean(1, keepdims=True)) / jnp.sqrt(z.var(1, keepdims=True) + 1e-5)
        return jnp.tanh(z) @ w["b"]

    return fit(forward, layers(), adam, {"lr": 0.02})


def normalised(z, mean, var):
    return (z - mean) / jnp.sqrt(var + 1e-3)


def batch_norm():
    def forward(w, x, hyper):
        z = x @ w["a"]
        return jnp.tanh(normalised(z, z.mean(0), z.var(0))) @ w["b"]

    return fit(forward, layers())


def running_statistics(stop=lambda z: z, *, read=True):
    """Batch norm whose running mean and variance are part of the state, and read by the objective."""

    def forward(w, x, mean, var):
        return jnp.tanh(normalised(x @ w["a"], mean, var)) @ w["b"]

    def train(w, batch):
        z = batch[0] @ w["a"]
        mean, var = z.mean(0), z.var(0)
        return jnp.mean((forward(w, batch[0], mean, var) - batch[1]) ** 2), (mean, var)

    def step(s, hyper, batch):
        (_, seen), gradient = jax.value_and_grad(train, has_aux=True)(s["w"], batch)
        moved = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * stop(b), s["seen"], seen)
        w = jax.tree.map(lambda p, g: p - hyper["lr"] * g, s["w"], gradient)
        return {"w": w, "seen": moved}

    def objective(s, hyper, batch):
        seen = s["seen"] if read else (jnp.zeros(4), jnp.ones(4))
        return jnp.mean((forward(s["w"], batch[0], *seen) - batch[1]) ** 2)

    init = {"w": layers(), "seen": (jnp.zeros(4), jnp.ones(4))}
    return simulated(lambda hyper: init, step, objective, {"lr": 0.1})


def carried_statistics(stop=lambda z: z):
    """The same under `rfho.Descent`: the statistics are carried beside the parameters."""

    def loss(w, hyper, batch):
        z = batch[0] @ w.params["a"]
        seen = {"mean": z.mean(0), "var": z.var(0)}
        moved = jax.tree.map(lambda old, new: 0.7 * old + 0.3 * stop(new), w.carried, seen)
        read = jnp.tanh(normalised(z, seen["mean"], seen["var"])) @ w.params["b"]
        return jnp.mean((read - batch[1]) ** 2), moved

    def objective(w, hyper, batch):
        z = normalised(batch[0] @ w.params["a"], w.carried["mean"], w.carried["var"])
        return jnp.mean((jnp.tanh(z) @ w.params["b"] - batch[1]) ** 2)

    start = rfho.Variables(layers(), {"mean": jnp.zeros(4), "var": jnp.ones(4)})
    dynamics = rfho.Descent(loss, adam, start, has_aux=True)
    return Model(rfho.Problem(dynamics, objective, data(0), data(1), HORIZON), {"lr": 0.02})


def attention():
    def forward(w, x, hyper):
        tokens = x[:, :, None] * w["e"]
        scores = jnp.einsum("nik,nkj->nij", tokens @ w["q"], tokens.transpose(0, 2, 1))
        scores = jnp.where(jnp.tri(3, dtype=bool), scores, -jnp.inf)
        return (jax.nn.softmax(scores) @ tokens).mean((1, 2))

    return fit(forward, {"e": normal(4), "q": normal(4, 4, seed=4)}, adam, {"lr": 0.02})


def recurrent():
    def forward(w, x, hyper):
        def cell(h, u):
            gate = jax.nn.sigmoid(u[:, None] * w["g"] + h @ w["r"])
            return gate * h + (1 - gate) * jnp.tanh(u[:, None] * w["i"] + h @ w["r"]), None

        start = jnp.zeros((x.shape[0], 4), x.dtype)
        return jax.lax.scan(cell, start, x.T)[0] @ w["b"]

    w = {"g": normal(4), "r": normal(4, 4, seed=5), "i": normal(4, seed=6), "b": normal(4, seed=7)}
    return fit(forward, w)


def dropped(w, x, key):
    kept = jax.random.bernoulli(key, 0.7, (x.shape[0], 4))
    return jnp.where(kept, jnp.tanh(x @ w["a"]) / 0.7, 0) @ w["b"]


def dropout_from_the_step():
    x, y = data(0)

    def train(t):
        return x, y, jax.random.fold_in(jax.random.key(0), t)

    def loss(w, hyper, batch):
        return jnp.mean((dropped(w, batch[0], batch[2]) - batch[1]) ** 2)

    def objective(w, hyper, batch):
        return jnp.mean((jnp.tanh(batch[0] @ w["a"]) @ w["b"] - batch[1]) ** 2)

    dynamics = rfho.Descent(loss, sgd, layers())
    return Model(rfho.Problem(dynamics, objective, train, data(1), HORIZON), {"lr": 0.1})


def dropout_from_the_state():
    def step(s, hyper, batch):
        key, used = jax.random.split(s["key"])
        loss = lambda w: jnp.mean((dropped(w, batch[0], used) - batch[1]) ** 2)  # noqa: E731
        gradient = jax.grad(loss)(s["w"])
        return {"w": jax.tree.map(lambda p, g: p - hyper["lr"] * g, s["w"], gradient), "key": key}

    def objective(w, hyper, batch):
        return jnp.mean((jnp.tanh(batch[0] @ w["a"]) @ w["b"] - batch[1]) ** 2)

    def init(hyper):
        return {"w": layers(), "key": jax.random.key(3)}

    return simulated(init, step, objective, {"lr": 0.1}, lambda s: s["w"])


def rows_that_never_occur():
    words = jnp.asarray(np.random.default_rng(0).integers(0, 4, (8, 5)))

    def forward(w, x, hyper):
        return jnp.tanh(w["rows"][words]).mean(1) @ w["out"]

    return fit(forward, {"rows": normal(7, 4), "out": normal(4)}, adam, {"lr": 0.02})


def averaged_weights():
    def step(s, hyper, batch):
        gradient = jax.grad(squared_error)(s["w"], hyper, batch)
        w = s["w"] - hyper["lr"] * gradient
        return {"w": w, "mean": hyper["keep"] * s["mean"] + (1 - hyper["keep"]) * w}

    init = {"w": normal(3), "mean": normal(3)}
    return simulated(
        lambda hyper: init, step, squared_error, {"lr": 0.1, "keep": 0.8}, lambda s: s["mean"]
    )


def quantiles():
    def forward(w, x, hyper):
        return x @ w

    pinball = lambda z: jnp.mean(jnp.maximum(0.3 * z, -0.7 * z)) + 0.1 * jnp.mean(z**2)  # noqa: E731
    return fit(forward, normal(3), loss=pinball)


def clipped_huber():
    optim = lambda h: optax.chain(optax.clip_by_global_norm(h["clip"]), optax.sgd(h["lr"]))  # noqa: E731
    huber = lambda z: jnp.mean(optax.losses.huber_loss(z, delta=0.4))  # noqa: E731
    return fit(lambda w, x, hyper: x @ w, normal(3), optim, {"lr": 0.1, "clip": 0.2}, loss=huber)


def rmsprop():
    optim = lambda h: optax.rmsprop(h["lr"], decay=h["decay"], momentum=0.5)  # noqa: E731
    return fit(two_layers(jnp.tanh), layers(), optim, {"lr": 0.01, "decay": 0.8})


def lion():
    optim = lambda h: optax.lion(h["lr"], weight_decay=h["decay"])  # noqa: E731
    return fit(two_layers(jnp.tanh), layers(), optim, {"lr": 0.01, "decay": 0.1})


def experts():
    def forward(w, x, hyper):
        weight, chosen = jax.lax.top_k(jax.nn.softmax(x @ w["gate"]), 2)
        each = jnp.tanh(jnp.einsum("ni,eik->nek", x, w["expert"])).sum(-1)
        return jnp.sum(weight * jnp.take_along_axis(each, chosen, 1), 1)

    return fit(forward, {"gate": normal(3, 4), "expert": normal(4, 3, 2, seed=8)})


def shifted_softmax():
    """The largest logit is subtracted under a stop_gradient, which changes no derivative."""

    def forward(w, x, hyper):
        z = x @ w["a"]
        e = jnp.exp(z - jax.lax.stop_gradient(z.max(1, keepdims=True)))
        return (e / e.sum(1, keepdims=True)) @ w["b"]

    return fit(forward, layers())


def adapted():
    """A gradient step inside of the loss."""

    def forward(w, x, hyper):
        inner = lambda v: jnp.mean((jnp.tanh(x @ v) - x[:, 1]) ** 2)  # noqa: E731
        return x @ (w - hyper["inner"] * jax.grad(inner)(w))

    return fit(forward, normal(3), hyper={"lr": 0.1, "inner": 0.3})


def frozen_features():
    """Features that are not trained, behind a stop_gradient."""

    def forward(w, x, hyper):
        return jax.lax.stop_gradient(jnp.tanh(x @ w["a"])) @ w["b"]

    return fit(forward, layers())


def scheduled():
    optim = lambda h: optax.sgd(rfho.schedules.piecewise(h["lr"], HORIZON))  # noqa: E731
    return fit(two_layers(jnp.tanh), layers(), optim, {"lr": 0.1 * jnp.ones(HORIZON)})


def weighted_examples():
    def loss(w, hyper, batch):
        return jnp.mean(jax.nn.sigmoid(hyper["weight"]) * (batch[0] @ w - batch[1]) ** 2)

    dynamics = rfho.Descent(loss, sgd, normal(3))
    problem = rfho.Problem(dynamics, squared_error, data(0), data(1), HORIZON)
    return Model(problem, {"lr": 0.1, "weight": jnp.zeros(8)})


def plateau():
    """The rate is halved when the loss has not fallen: a comparison, and an infinity at the start."""

    def step(s, hyper, batch):
        value, gradient = jax.value_and_grad(squared_error)(s["w"], hyper, batch)
        scale = jnp.where(value < 0.99 * s["best"], s["scale"], 0.5 * s["scale"])
        w = s["w"] - hyper["lr"] * scale * gradient
        return {"w": w, "best": jnp.minimum(value, s["best"]), "scale": scale}

    def init(hyper):
        return {"w": normal(3), "best": jnp.asarray(jnp.inf), "scale": jnp.ones(())}

    return simulated(init, step, squared_error, {"lr": 0.1}, lambda s: s["w"])


def sampled():
    """An autoencoder with noise between its halves."""
    x, _ = data(0)

    def train(t):
        return x, jax.random.normal(jax.random.fold_in(jax.random.key(1), t), (8, 2), x.dtype)

    def loss(w, hyper, batch):
        mean, spread = jnp.split(batch[0] @ w["in"], 2, axis=1)
        z = mean + jnp.exp(0.5 * spread) * batch[1]
        penalty = jnp.mean(jnp.exp(spread) + mean**2 - 1 - spread)
        return jnp.mean((z @ w["out"] - batch[0]) ** 2) + hyper["beta"] * penalty

    def objective(w, hyper, batch):
        return jnp.mean(((batch @ w["in"])[:, :2] @ w["out"] - batch) ** 2)

    dynamics = rfho.Descent(loss, adam, {"in": normal(3, 4), "out": normal(2, 3, seed=9)})
    problem = rfho.Problem(dynamics, objective, train, data(1)[0], HORIZON)
    return Model(problem, {"lr": 0.01, "beta": 0.1})


def recomputed_blocks():
    def forward(w, x, hyper):
        block = jax.checkpoint(lambda z, a: z + jnp.tanh(z @ a))
        for a in w["blocks"]:
            x = block(x, a)
        return x.sum(1)

    return fit(forward, {"blocks": [normal(3, 3), normal(3, 3, seed=10)]})


def a_step_that_decides():
    def step(s, hyper, batch):
        down = lambda w: w - hyper["lr"] * jax.grad(squared_error)(w, hyper, batch)  # noqa: E731
        turn = lambda w: w * (1 - hyper["decay"])  # noqa: E731
        return {"w": jax.lax.cond(s["t"] % 2 == 0, down, turn, s["w"]), "t": s["t"] + 1}

    def init(hyper):
        return {"w": normal(3), "t": jnp.zeros((), jnp.int32)}

    return simulated(init, step, squared_error, {"lr": 0.1, "decay": 0.05}, lambda s: s["w"])


MODELS = (
    logistic,
    rectified,
    gelu_adamw,
    convolution_with_pooling,
    layer_norm,
    batch_norm,
    running_statistics,
    carried_statistics,
    attention,
    recurrent,
    dropout_from_the_step,
    dropout_from_the_state,
    rows_that_never_occur,
    averaged_weights,
    quantiles,
    clipped_huber,
    rmsprop,
    lion,
    experts,
    shifted_softmax,
    adapted,
    frozen_features,
    scheduled,
    weighted_examples,
    plateau,
    sampled,
    recomputed_blocks,
    a_step_that_decides,
)
