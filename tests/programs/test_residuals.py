"""Of a linearisation is kept what follows from the state, and nothing that is there again anyway."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfho._programs.residuals import linearised

DATA = jnp.asarray(np.random.default_rng(0).normal(size=(40, 3)))
STATE, GIVEN = jnp.array([0.3, -0.2, 0.5]), jnp.array([1.0, 2.0, 3.0])


def by(function):
    """``function(state, given)`` as it is linearised by its state."""
    return lambda state, given: jax.linearize(lambda s: function(s, given), state)


def shapes(function):
    return [leaf.shape for leaf in linearised(by(function), STATE, GIVEN).kept()]


def data_closed_over(state, given):
    return jnp.sin(DATA @ state)


def derived_from_data_and_given(state, given):
    return state * jnp.exp(given) * jnp.cos(DATA).sum()


def the_state_itself(state, given):
    return state**2


FUNCTIONS = [
    data_closed_over,
    derived_from_data_and_given,
    the_state_itself,
    jax.jit(data_closed_over),
    jax.jit(lambda state, given: jax.jit(derived_from_data_and_given)(state, given)),
    lambda state, given: jax.lax.scan(lambda s, row: (jnp.sin(s * row), s), state, DATA)[1],
    jax.checkpoint(lambda state, given: jnp.tanh(DATA @ jnp.tanh(state * given))),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=map(str, range(len(FUNCTIONS))))
def test_the_linear_part_with_what_was_kept_is_the_linear_part(function):
    def kept(state, given):
        linear = linearised(by(function), state, given)
        return linear.outputs, linear.kept()

    def later(state, given, kept, tangent):
        return linearised(by(function), state, given).recalled(kept)(tangent)

    value, memory = jax.jit(kept)(STATE, GIVEN)
    found = jax.jit(later)(STATE, GIVEN, memory, GIVEN)
    expected = jax.jvp(lambda s: function(s, GIVEN), (STATE,), (GIVEN,))
    np.testing.assert_allclose(value, expected[0], rtol=1e-14)
    np.testing.assert_allclose(found, expected[1], rtol=1e-13, atol=1e-15)


def test_what_follows_from_the_state_takes_the_place_of_what_is_there():
    linear = linearised(by(lambda s, given: jnp.sin(2 * s)), STATE, GIVEN)
    pull = linear.recalled(jax.tree.map(jnp.zeros_like, linear.kept()))
    np.testing.assert_array_equal(pull(GIVEN), 0)


def test_what_was_kept_of_another_function_is_refused():
    kept = linearised(by(data_closed_over), STATE, GIVEN).kept()
    other = linearised(by(lambda s, given: jnp.sin(s * given)), STATE, GIVEN)
    with pytest.raises(RuntimeError, match="traced to two different programs"):
        other.recalled(kept)


def test_constants_are_not_kept():
    assert shapes(data_closed_over) == shapes(jax.jit(data_closed_over)) == [(40,)]


def test_what_follows_from_others_alone_is_not_kept():
    assert shapes(derived_from_data_and_given) == []
    assert shapes(jax.jit(derived_from_data_and_given)) == []


def test_the_state_is_not_kept_beside_itself():
    assert all(shape != (3,) for shape in shapes(jax.checkpoint(the_state_itself)))


def test_integers_and_keys_of_the_state_are_carried_along():
    state = {"w": STATE, "count": jnp.array(2), "key": jax.random.key(0)}

    def function(state, given):
        noise = jax.random.normal(state["key"], (3,))
        step = lambda w: jnp.sin(w * noise) ** state["count"]  # noqa: E731
        return jax.linearize(step, state["w"])

    linear = linearised(function, state, GIVEN)
    np.testing.assert_allclose(linear.pull(GIVEN), linear.recalled(linear.kept())(GIVEN), rtol=0)


@pytest.mark.parametrize(
    ("function", "loops"),
    [
        (data_closed_over, False),
        (jax.jit(lambda state, given: jax.lax.scan(lambda c, x: (c * x, c), state, DATA)[1]), True),
        (lambda state, given: jax.lax.fori_loop(0, 2, lambda i, s: s * given, state), True),
    ],
)
def test_loops_are_seen(function, loops):
    assert linearised(by(function), STATE, GIVEN).loops is loops
