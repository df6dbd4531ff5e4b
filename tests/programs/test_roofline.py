"""What a function computes and moves is counted, and what nobody knows is named."""

import jax
import jax.numpy as jnp
import pytest
from losses import LOSSES

from rfho._programs.roofline import Work, work_of
from rfho.choice import Rates

A, B = jnp.ones((3, 5), jnp.float32), jnp.ones((5, 2), jnp.float32)


def test_products_are_counted_and_elementwise_operations_move_nothing():
    work = work_of(lambda a, b: jnp.sum(2 * jnp.tanh(a @ b) + 1), A, B)
    assert work.products == 2 * 3 * 5 * 2
    assert work.effort == 3 * 6 + 6
    # The product reads two matrices and writes one, the sum reads that and writes a number.
    assert work.traffic == 4 * (15 + 10 + 6) + 4 * (6 + 1)
    assert work.kernels == 2


def test_a_convolution_is_the_products_of_its_window():
    x, window = jnp.ones((1, 8, 8, 3)), jnp.ones((5, 5, 3, 7))
    convolve = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert work_of(convolve, x, window).products == 2 * (4 * 4 * 7) * (5 * 5 * 3)


def test_views_and_dead_code_cost_nothing():
    assert work_of(lambda a, b: (a.T.reshape(-1), jnp.sin(a) @ b)[0], A, B) == Work()


def test_a_loop_is_its_body_as_often_as_it_runs():
    square = lambda a: jnp.sin(a @ a)  # noqa: E731
    many = lambda a: jax.lax.fori_loop(0, 7, lambda _, a: square(a), a)  # noqa: E731
    once = work_of(square, jnp.ones((4, 4)))
    assert work_of(many, jnp.ones((4, 4))).products == 7 * once.products == 7 * 2 * 4**3


def test_a_branch_is_the_most_of_its_branches():
    branch = lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a, a)  # noqa: E731
    assert work_of(branch, jnp.ones((4, 4))).products == 2 * 4**3


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint], ids=["jit", "remat"])
def test_a_call_is_what_it_calls(wrap):
    function = lambda a, b: jnp.tanh(a @ b)  # noqa: E731
    assert work_of(wrap(function), A, B) == work_of(function, A, B)


def test_what_is_looked_up_or_changed_is_moved_and_no_more():
    table, index = jnp.ones((1000, 8), jnp.float32), jnp.zeros(4, jnp.int32)
    assert work_of(lambda t, i: t[i], table, index).traffic < 8 * 4 * 8 * 4
    assert work_of(lambda t, i: t.at[i].add(1.0), table, index).traffic < 8 * 4 * 8 * 4


def test_an_operation_that_nobody_knows_is_named_and_not_counted():
    def strange(x):
        return jax.lax.linalg.tridiagonal_solve(x, x + 4, x, x[:, None]), x

    known = work_of(strange, jnp.ones(5))
    assert known.unknown == frozenset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfho._programs.roofline._CUBIC", {})
        work = work_of(strange, jnp.ones(5))
    assert work.unknown == {"tridiagonal_solve"}
    assert work.products == 0


@pytest.mark.parametrize("name", LOSSES)
def test_every_operation_of_the_usual_models_is_known(name):
    """Forwards, backwards and twice, as training and hypergradients run them."""
    w, x, function = LOSSES[name]
    gradient = jax.grad(lambda w: jnp.mean(function(w, x)))
    twice = lambda w: jax.jvp(gradient, (w,), (w,))  # noqa: E731
    work = work_of(twice, w)
    assert not work.unknown
    assert work.seconds(Rates()) >= work_of(gradient, w).seconds(Rates()) > 0
