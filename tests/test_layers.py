"""Layers: the plain formula, derivatives of every order in both modes, memory, and training through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfho
from rfho.layers import attention, embedding, normalised, normalised_by, statistics

KEY = jax.random.key(0)
Q, K, V = (
    jax.random.normal(key, shape)
    for key, shape in zip(jax.random.split(KEY, 3), [(2, 5, 3), (2, 5, 3), (2, 5, 2)], strict=True)
)
INDEX = jnp.array([[3, 0], [-1, 3], [9, 1]])


def plain_attention(q, k, v, causal):
    logits = q @ jnp.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if causal:
        logits = jnp.where(np.tril(np.ones((5, 5), bool)), logits, -1e30)
    weights = jnp.exp(logits)
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", [1, 2, 5, 9])
def test_attention_is_the_plain_formula(block, causal):
    found = attention(Q, K, V, causal=causal, block=block)
    np.testing.assert_allclose(found, plain_attention(Q, K, V, causal), rtol=1e-12)


def test_attention_maps_over_members():
    mapped = jax.vmap(lambda q: attention(q, K[0], V[0], block=2))(Q)
    np.testing.assert_allclose(mapped[1], attention(Q[1], K[0], V[0]), rtol=1e-12)


def test_the_memory_of_attention_is_linear_in_the_sequence():
    def bytes_of(n):
        x = jax.ShapeDtypeStruct((n, 8), jnp.float64)
        gradient = jax.grad(lambda x: jnp.sum(attention(x, x, x, block=32) ** 2))
        compiled = jax.jit(gradient).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(2048) < 2.5 * bytes_of(1024)
    assert bytes_of(2048) < 0.25 * 8 * 2048**2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 0}, "attention got block=0"),
        ({"causal": True}, "5 queries and 4 keys"),
    ],
)
def test_misuse_of_attention_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention(Q, K[:, :4], V[:, :4], **arguments)


def after_training(x):
    y, carried = normalised(x, statistics(3, "float64"), momentum=0.7)
    return y, normalised_by(x, carried)


def test_normalisation_is_the_plain_formula():
    y, carried = normalised(Q, statistics(3, "float64"), momentum=0.7, epsilon=1e-3)
    flat = np.asarray(Q).reshape(-1, 3)
    mean, var = flat.mean(0), flat.var(0)
    np.testing.assert_allclose(y, (Q - mean) / np.sqrt(var + 1e-3), rtol=1e-12)
    np.testing.assert_allclose(carried.mean, 0.3 * mean, rtol=1e-12)
    np.testing.assert_allclose(carried.var, 0.7 + 0.3 * var, rtol=1e-12)
    evaluated = normalised_by(Q, carried, epsilon=1e-3)
    expected = (Q - 0.3 * mean) / np.sqrt(0.7 + 0.3 * var + 1e-3)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-12)


def test_an_embedding_gives_rows_and_zeros_for_padding():
    table = jnp.arange(8.0).reshape(4, 2) + 1
    found = embedding(table, INDEX)
    assert found.shape == (3, 2, 2)
    assert found[0].tolist() == [[7, 8], [1, 2]]
    assert found[1].tolist() == [[0, 0], [7, 8]]
    assert found[2].tolist() == [[0, 0], [3, 4]]


LAYERS = {
    "attention": (lambda q, k, v: attention(q, k, v, causal=True, block=2), (Q[0], K[0], V[0])),
    "normalisation": (after_training, (Q[0],)),
    "embedding": (lambda table: jnp.sin(embedding(table, INDEX)), (Q[0],)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_of_three_orders_are_those_of_finite_differences(name):
    function, arguments = LAYERS[name]
    check_grads(jax.jit(function), arguments, order=2, modes=("fwd", "rev"), rtol=1e-4)
    gradient = jax.grad(lambda *x: loss_of(function, x))
    along = jax.jit(lambda *x: jax.jvp(gradient, x, x)[1])
    check_grads(along, arguments, order=1, modes=("fwd",), rtol=1e-4)


def loss_of(function, arguments):
    return sum(jnp.sum(jnp.tanh(leaf)) for leaf in jax.tree.leaves(function(*arguments)))


def test_training_through_all_of_them_has_the_hypergradient_of_finite_differences():
    """Words, attention among them, normalisation; rows 5 to 7 of the table are never looked up."""
    words = jax.random.randint(jax.random.key(1), (6, 4), 0, 5)
    target = jax.random.normal(jax.random.key(2), (6,))
    start = {"table": 0.5 * jax.random.normal(jax.random.key(3), (8, 3)), "out": jnp.ones(3)}

    def loss(variables, hyper, batch):
        w, carried = variables
        x = embedding(w["table"], words)
        x = attention(x, x, x, block=2).mean(1)
        x, carried = normalised(x, carried, momentum=hyper["momentum"])
        return jnp.mean((x @ w["out"] - target) ** 2), carried

    def objective(variables, hyper, batch):
        w, carried = variables
        x = embedding(w["table"], words)
        x = normalised_by(attention(x, x, x, block=2).mean(1), carried)
        return jnp.mean((x @ w["out"] - target) ** 2)

    def trained_from(hyper):
        return rfho.Variables(hyper["start"], statistics(3, "float64"))

    dynamics = rfho.Descent(
        loss, lambda hyper: rfho.optim.adam(hyper["rate"]), trained_from, has_aux=True
    )
    problem = rfho.Problem(dynamics, objective, horizon=4)
    hyper = {"rate": jnp.array(0.1), "momentum": jnp.array(0.8), "start": start}
    found = rfho.hyper_gradient(problem, hyper).hypergradient
    assert np.array_equal(found["start"]["table"][5:], np.zeros((3, 3)))
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), hyper)

    def value(h):
        return float(
            rfho.train(problem, jax.tree.map(lambda a, d: a + h * d, hyper, direction)).value
        )

    expected = (8 * (value(1e-4) - value(-1e-4)) - (value(2e-4) - value(-2e-4))) / 12e-4
    slope = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (found, direction)), strict=True)
    )
    assert float(slope) == pytest.approx(expected, rel=1e-7)
