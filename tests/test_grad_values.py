"""`rfho.grad` of losses that use what the step has made: keys, masks, labels, counters, whole epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfho
from rfho.hyper_gradients import ForwardHyperGradient, ReverseHyperGradient

N, WIDTH, CLASSES = 12, 3, 4
X = jax.random.normal(jax.random.key(0), (N, WIDTH))
LABELS = jax.random.randint(jax.random.key(1), (N,), 0, CLASSES)
HYPER = {"lr": jnp.array(0.3), "l2": jnp.array(0.05), "weights": jnp.linspace(-0.5, 0.5, N)}
HORIZON = 5


def start(raw):
    """Parameters, a counter and a key; ``raw`` keys are arrays of integers."""
    key = jax.random.PRNGKey(3) if raw else jax.random.key(3)
    w = jax.random.normal(jax.random.key(2), (WIDTH, CLASSES)) / 2
    return {"w": w, "count": jnp.zeros((), jnp.int32), "key": key}


def entropy(w, hyper, x, labels):
    each = -jnp.take_along_axis(jax.nn.log_softmax(jnp.tanh(x) @ w), labels[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.sigmoid(hyper["weights"])[: len(each)] * each) + hyper["l2"] * jnp.sum(
        w**2
    )


# Each: what the step makes for its loss, from state and λ; and the loss, which is given it.
def dropout_mask(state, hyper):
    return (jax.random.bernoulli(state["key"], 0.8, X.shape),)


def with_mask(w, hyper, mask):
    return entropy(w, hyper, X * mask, LABELS)


def key_alone(state, hyper):
    return (jax.random.fold_in(state["key"], state["count"]),)


def with_key(w, hyper, key):
    return entropy(w, hyper, X * jax.random.bernoulli(key, 0.8, X.shape), LABELS)


def split_keys(state, hyper):
    return (jax.random.split(state["key"], 3),)


def with_split_keys(w, hyper, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, X.shape))(keys)
    return entropy(w, hyper, X + noise.mean(0), LABELS)


def pseudo_labels(state, hyper):
    return (jnp.argmax(X @ state["w"] + hyper["l2"], axis=1),)


def with_labels(w, hyper, labels):
    return entropy(w, hyper, X, labels)


def sliced(state, hyper):
    first = state["count"] % 3
    cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, 6)  # noqa: E731
    return cut(X), cut(LABELS)


def with_slices(w, hyper, x, labels):
    return entropy(w, hyper, x, labels)


def counter(state, hyper):
    return (state["count"],)


def with_counter(w, hyper, count):
    return entropy(w, hyper, X, LABELS) / (1 + count)


def sign_mask(state, hyper):
    return (state["w"] > hyper["l2"],)


def with_switch(w, hyper, positive):
    kept = jax.lax.cond(positive.sum() > 6, lambda w: w * positive, jnp.sin, w)
    return entropy(kept, hyper, X, LABELS)


def order(state, hyper):
    turn = jax.random.randint(state["key"], (), 0, N)
    return ((5 * jnp.arange(N) + turn).reshape(3, 4) % N,)


def with_loop_inside(w, hyper, order):
    def one(total, rows):
        return total + entropy(w, hyper, X[rows], LABELS[rows]), None

    return jax.lax.scan(one, jnp.zeros(()), order)[0]


def words_and_numbers(state, hyper):
    return "mean", 2, state["count"], hyper["lr"] * state["w"]


def with_words(w, hyper, reduce, power, count, offset):
    loss = entropy(w + offset, hyper, X, LABELS)
    return (loss if reduce == "mean" else N * loss) ** power / (1 + count)


MADE = {
    "dropout mask": (dropout_mask, with_mask),
    "key": (key_alone, with_key),
    "split keys": (split_keys, with_split_keys),
    "argmax pseudo-labels": (pseudo_labels, with_labels),
    "sliced labels": (sliced, with_slices),
    "counter": (counter, with_counter),
    "bool mask under cond": (sign_mask, with_switch),
    "order, scanned in the loss": (order, with_loop_inside),
    "words, ints and a derived array": (words_and_numbers, with_words),
}


def one_gradient(made, loss, *, closed):
    """A step with one gradient, whose loss closes over what the step has made or is given it."""

    def step_with(grad):
        def step(state, hyper, batch):
            values = made(state, hyper)
            if closed:
                g = grad(lambda w: loss(w, hyper, *values))(state["w"])
            else:
                g = grad(loss)(state["w"], hyper, *values)
            return onwards(state, hyper, g)

        return step

    return step_with


def onwards(state, hyper, gradient):
    w = state["w"] - hyper["lr"] * gradient
    key = jax.random.fold_in(state["key"], 7)
    return {"w": w, "count": state["count"] + 1, "key": key}


def epoch_inside(grad):
    """A whole epoch in every step, its minibatches drawn there."""

    def step(state, hyper, batch):
        def one(w, rows):
            return w - hyper["lr"] * grad(lambda w: entropy(w, hyper, X[rows], LABELS[rows]))(
                w
            ), None

        (rows,) = order(state, hyper)
        w = jax.lax.scan(one, state["w"], rows)[0]
        return onwards({**state, "w": w}, hyper, jnp.zeros_like(w))

    return step


def gradient_of_each_example(grad):
    """Gradients of single examples by vmap, clipped and averaged."""

    def step(state, hyper, batch):
        (labels,) = pseudo_labels(state, hyper)

        def one(x, label):
            g = grad(lambda w: entropy(w, hyper, x[None], label[None]))(state["w"])
            return g / jnp.maximum(1, jnp.linalg.norm(g))

        return onwards(state, hyper, jax.vmap(one)(X, labels).mean(0))

    return step


def loop_with_counter(grad):
    """Three updates by a loop, the loss of each scaled by the loop's own counter."""

    def step(state, hyper, batch):
        def one(i, w):
            return w - hyper["lr"] * grad(lambda w: with_counter(w, hyper, i))(w)

        w = jax.lax.fori_loop(0, 3, one, state["w"])
        return onwards({**state, "w": w}, hyper, jnp.zeros_like(w))

    return step


def checkpointed_and_jitted(grad):
    """The loss under `jax.checkpoint`, its gradient under the step's own `jax.jit`."""

    @jax.jit
    def gradient(w, hyper, mask):
        return grad(jax.checkpoint(with_mask))(w, hyper, mask)

    def step(state, hyper, batch):
        return onwards(state, hyper, gradient(state["w"], hyper, *dropout_mask(state, hyper)))

    return step


def gradient_at_a_fixed_point(grad):
    """The gradient by one argument, at a constant, of a loss that the parameters enter by another."""

    def step(state, hyper, batch):
        loss = lambda at, w: entropy(w + at, hyper, X, LABELS)  # noqa: E731
        return onwards(state, hyper, grad(loss)(jnp.full((WIDTH, CLASSES), 0.1), state["w"]))

    return step


def with_statistics(w, hyper, state):
    """A loss in the running mean of what it sees; aux has floats that go on, integers, and a metric."""
    logits = X @ (w - 0.1 * state["mean"])
    mean = 0.9 * state["mean"] + 0.1 * jnp.tanh(w).mean(0) * hyper["l2"]
    aux = {"mean": mean, "correct": jnp.sum(jnp.argmax(logits, 1) == LABELS), "norm": jnp.sum(w**2)}
    return entropy(w - state["mean"], hyper, X, LABELS), aux


def carried_statistics(grad):
    """What a loss brings back beside its value goes into the next state."""

    def step(state, hyper, batch):
        seen = {"mean": jnp.sin(state["w"][0])}
        g, aux = grad(with_statistics, has_aux=True)(state["w"], hyper, seen)
        g, again = grad(lambda w: with_statistics(w, hyper, aux), has_aux=True)(state["w"] - g)
        return onwards(state, hyper, g + again["mean"] / (1 + aux["correct"]))

    return step


def aux_alone(grad):
    """Only what the loss brings back is used, not the gradient."""

    def step(state, hyper, batch):
        _, aux = grad(with_statistics, has_aux=True)(state["w"], hyper, {"mean": jnp.ones(CLASSES)})
        return onwards(state, hyper, aux["mean"] * aux["norm"])

    return step


STEPS = {
    f"{name}, {'closed over' if closed else 'an argument'}": one_gradient(*pair, closed=closed)
    for name, pair in MADE.items()
    for closed in (True, False)
} | {
    function.__name__: function
    for function in (
        epoch_inside,
        gradient_of_each_example,
        loop_with_counter,
        checkpointed_and_jitted,
        gradient_at_a_fixed_point,
        carried_statistics,
        aux_alone,
    )
}
RAW = [name for name in STEPS if "key" in name or "mask" in name]
ROWS = [(name, False) for name in STEPS] + [(name, True) for name in RAW]


@pytest.mark.parametrize(("name", "raw"), ROWS, ids=[f"{n}, raw {r}" for n, r in ROWS])
def test_a_step_back_and_a_step_forward_are_those_of_jax_grad(name, raw):
    dynamics = rfho.Dynamics(lambda hyper: start(raw), STEPS[name](rfho.grad))
    way = dynamics.way(rfho.Keep.STATES)
    plain = STEPS[name](jax.grad)

    @jax.jit
    def both(state, hyper, v):
        given = state["w"], hyper
        by_jax = lambda w, hyper: plain({**state, "w": w}, hyper, None)["w"]  # noqa: E731
        ours = lambda w, hyper: dynamics.step({**state, "w": w}, hyper, None)["w"]  # noqa: E731
        adjoint = {"w": v, "count": None, "key": None}
        back = way.pull_back(adjoint, state, (), hyper, None)
        return (
            (back[0]["w"], back[1]),
            jax.vjp(by_jax, *given)[1](v),
            jax.jvp(ours, given, given)[1],
            jax.jvp(by_jax, given, given)[1],
        )

    state = dynamics.step(start(raw), HYPER, None)
    back, expected_back, forward, expected_forward = both(state, HYPER, jnp.cos(state["w"]))
    close((back, forward), (expected_back, expected_forward))


def objective(state, hyper, batch):
    return entropy(state["w"], {**HYPER, "l2": 0.0}, X[::-1], LABELS) + jnp.sum(state["w"] ** 3)


@pytest.mark.parametrize("name", ["key, closed over", "epoch_inside", "checkpointed_and_jitted"])
def test_reverse_is_forward_and_jax_grad_of_the_loop(name):
    expected = by_jax(STEPS[name](jax.grad))
    dynamics = rfho.Dynamics(lambda hyper: start(raw=False), STEPS[name](rfho.grad))
    problem = rfho.Problem(dynamics, objective, train=None, valid=None, horizon=HORIZON)
    for method in (ReverseHyperGradient(), ForwardHyperGradient()):
        close(rfho.hyper_gradient(problem, HYPER, method).hypergradient, expected)


def by_jax(step):
    """The hypergradient by `jax.grad` over the loop, with `jax.grad` inside."""

    def f(hyper):
        state, _ = jax.lax.scan(
            lambda state, _: (step(state, hyper, None), None), start(raw=False), length=HORIZON
        )
        return objective(state, hyper, None)

    return jax.jit(jax.grad(f))(HYPER)


def close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)
