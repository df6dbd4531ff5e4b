"""Roots and quotients have a derivative where they are singular, wherever in an optimiser they stand."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimiser_rows import RATE, Row
from optimiser_table import measured
from sampled import sampled

from rfho.optim import safe_roots


def clipped(g):
    """What clips by the norm: 0/0 at zero, which is thrown away there; the slope is one."""
    norm = jnp.sqrt(jnp.sum(g**2))
    return jnp.where(norm < 1, g, g / norm * 0.5)


@jax.custom_jvp
def with_rule_of_jax(g):
    return clipped(g)


with_rule_of_jax.defjvp(lambda g, t: jax.jvp(clipped, g, t))


@jax.custom_jvp
def with_rule_by_hand(g):
    return g + jnp.sqrt(jnp.sum(g**2))


@with_rule_by_hand.defjvp
def _(primals, tangents):
    (g,), (t,) = primals, tangents
    norm = jnp.sqrt(jnp.sum(g**2))
    return g + norm, t + jnp.sum(g * t) / norm


def scanned(g):
    return jax.lax.scan(lambda g, _: (clipped(g), clipped(g)), g, None, length=3)[0]


def repeated(g):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, clipped(c[1])), (0, g))[1]


INSIDE = {
    "nothing": clipped,
    "jit": jax.jit(clipped),
    "jit in jit": jax.jit(lambda g: jax.jit(clipped)(g)),
    "remat": jax.checkpoint(clipped),
    "remat of dots": jax.checkpoint(clipped, policy=jax.checkpoint_policies.dots_saveable),
    "cond": lambda g: jax.lax.cond(g[0] > 1, jnp.cos, clipped, g),
    "scan": scanned,
    "while": repeated,
    "vmap": lambda g: jax.vmap(clipped)(jnp.stack([g, g]))[0],
    "custom_jvp by jax": with_rule_of_jax,
    "custom_jvp by hand": with_rule_by_hand,
    "a chain of all": lambda g: with_rule_of_jax(scanned(jax.checkpoint(clipped)(g))),
}
ZERO = jnp.zeros(2)


def as_optimiser(function):
    return safe_roots(optax.stateless(lambda updates, params: function(updates)))


def updated(function):
    optim = as_optimiser(function)
    return lambda g: optim.update(g, optim.init(g))[0]


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", INSIDE)
def test_the_slope_of_what_clips_is_one_at_zero_inside_of(name, jit):
    function = updated(INSIDE[name])
    modes = (
        [jax.jacfwd(function)] if name == "while" else [jax.jacfwd(function), jax.jacrev(function)]
    )
    for derivative in modes:
        found = (jax.jit(derivative) if jit else derivative)(ZERO)
        np.testing.assert_array_equal(found, jnp.eye(2))


@pytest.mark.parametrize("name", INSIDE)
def test_elsewhere_values_and_derivatives_are_as_they_were(name):
    for g in (jnp.asarray([0.3, -0.4]), jnp.asarray([3.0, 4.0])):
        found, expected = (
            (function(g), jax.jacfwd(function)(g))
            for function in (updated(INSIDE[name]), INSIDE[name])
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), found, expected)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda x: x / x, jnp.nan),
        (lambda x: 1 / x, jnp.inf),
        (lambda x: jnp.sqrt(x - 1), jnp.nan),
        (lambda x: jax.lax.rsqrt(x), jnp.inf),
        (lambda x: jnp.log(x), -jnp.inf),
        (lambda x: x**0.5, 0.0),
        (lambda x: jnp.power(x, -0.5), jnp.inf),
        (lambda x: jnp.cbrt(x), 0.0),
        (lambda x: jnp.exp(jnp.tanh(x / x) * (x / x)), jnp.nan),
        (lambda x: (x / x) @ jnp.ones((1, 3)), jnp.nan),
    ],
    ids=[
        "0/0",
        "1/0",
        "√-1",
        "rsqrt",
        "log",
        "power",
        "negative power",
        "cbrt",
        "after",
        "product",
    ],
)
def test_a_singular_value_stays_and_its_derivative_is_zero(function, value):
    safe, x = updated(function), jnp.zeros((1, 1))
    np.testing.assert_array_equal(safe(x), value * jnp.ones_like(safe(x)))
    np.testing.assert_array_equal(jax.jacrev(safe)(x), 0.0)
    np.testing.assert_array_equal(jax.jacfwd(safe)(x), 0.0)


def test_second_derivatives_are_those_of_what_is_thrown_away_less():
    function = updated(lambda g: jnp.sum(clipped(g) ** 2))
    np.testing.assert_array_equal(jax.hessian(function)(ZERO), 2 * jnp.eye(2))


def test_whole_numbers_and_keys_in_the_state_pass_through():
    optim = safe_roots(optax.add_noise(0.1, 0.5, key=0))
    state = optim.init(ZERO)
    _, state = optim.update(ZERO, state)
    assert np.isfinite(jax.jacfwd(lambda g: optim.update(g, state)[0])(ZERO)).all()


def before(transformation, optim=optax.adam):
    """A transformation with learned settings, and the optimiser after it."""
    return lambda learning_rate, **settings: safe_roots(
        optax.chain(transformation(**settings), optim(learning_rate))
    )


def after(transformation):
    return lambda learning_rate, **settings: safe_roots(
        optax.chain(optax.adam(learning_rate), transformation(**settings))
    )


def momentum(rate):
    return optax.sgd(rate, 0.9)


def twice(max_norm, again):
    return optax.chain(
        optax.clip_by_global_norm(max_norm),
        optax.trace(0.9),
        optax.zero_nans(),
        optax.clip_by_global_norm(again),
    )


def by_label(learning_rate, max_norm):
    chain = optax.chain(optax.clip_by_global_norm(max_norm), optax.adam(learning_rate))
    return safe_roots(
        optax.partition({"clipped": chain, "plain": optax.sgd(learning_rate)}, LABELS)
    )


def unless_infinite(learning_rate, max_norm):
    chain = optax.chain(optax.clip_by_global_norm(max_norm), optax.adam(learning_rate))
    return safe_roots(optax.apply_if_finite(chain, max_consecutive_errors=5))


LABELS = {"a": "clipped", "b": "clipped"}
CHAINS = {
    "clip_by_global_norm, adam": Row(before(optax.clip_by_global_norm), {**RATE, "max_norm": 0.3}),
    "clip_by_global_norm, sgd": Row(
        before(optax.clip_by_global_norm, optax.sgd), {**RATE, "max_norm": 0.3}
    ),
    "clip_by_global_norm, rmsprop": Row(
        before(optax.clip_by_global_norm, optax.rmsprop), {**RATE, "max_norm": 0.3}
    ),
    "twice, adam": Row(before(twice), {**RATE, "max_norm": 0.3, "again": 0.4}),
    "adaptive_grad_clip, adam": Row(before(optax.adaptive_grad_clip), {**RATE, "clipping": 0.1}),
    "clip_by_block_rms, adam": Row(before(optax.clip_by_block_rms), {**RATE, "threshold": 0.1}),
    "clip, momentum": Row(before(optax.clip, momentum), {**RATE, "max_delta": 0.1}),
    "normalize_by_update_norm, adam": Row(
        before(optax.normalize_by_update_norm), {**RATE, "scale_factor": 0.5}
    ),
    "adam, scale_by_trust_ratio": Row(
        after(optax.scale_by_trust_ratio), {**RATE, "trust_coefficient": 0.5}
    ),
    "adam, clip_by_global_norm": Row(after(optax.clip_by_global_norm), {**RATE, "max_norm": 0.01}),
    "partition": Row(by_label, {**RATE, "max_norm": 0.3}),
    "apply_if_finite": Row(unless_infinite, {**RATE, "max_norm": 0.3}),
}


@pytest.mark.parametrize("name", sampled(CHAINS, every=4))
def test_every_derivative_of_a_chain_is_right_in_both_modes(name):
    """With gradients that are never zero, zero in one leaf, and zero throughout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = measured(CHAINS[name])
    bad = {
        (case, mode, setting): verdict
        for case, modes in table.items()
        for mode, verdicts in modes.items()
        for setting, verdict in verdicts.items()
        if verdict not in ("exact", "zero")
    }
    assert not bad
