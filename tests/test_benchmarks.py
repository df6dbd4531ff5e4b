"""What the benchmarks count by themselves: the least work, and what a method keeps."""

import sys

import jax
import pytest

import rfho
from benchmarks import problems
from benchmarks.limits import limits, runs_anew
from benchmarks.measure import measure
from rfho._programs import trees as tree
from rfho.hyper_gradients import (
    ForwardHyperGradient,
    LongReverseHyperGradient,
    ReverseHyperGradient,
    TruncatedHyperGradient,
)

T = 12


@pytest.fixture(scope="module")
def small():
    return problems.small_network(T)


def bytes_of(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_a_product_of_a_linear_model_costs_one_gradient_or_one_and_a_half_from_its_parameters():
    # Two products with the data for a gradient, two for H v, one more for the predictions if they are not kept.
    _, problem, hyper = problems.softmax_regression(T, examples=500)
    counted = limits(problem, hyper)
    assert counted.product == pytest.approx(1, rel=0.05)
    assert counted.product_anew == pytest.approx(1.5, rel=0.05)


def test_least_ratios_follow_from_what_is_kept(small):
    _, problem, hyper = small
    counted = limits(problem, hyper)
    states = ReverseHyperGradient(rfho.StoreAll(rfho.Keep.STATES))
    assert counted.least_ratio(None, 1) == 1 + counted.product
    assert counted.least_ratio(ReverseHyperGradient(), 1) == 1 + counted.product
    assert counted.least_ratio(states, 1) == 1 + counted.product_anew
    assert counted.least_ratio(ReverseHyperGradient(rfho.Recompute()), 1) == (
        1 + counted.product_anew
    )
    assert counted.least_ratio(ForwardHyperGradient(), 5) == 1 + 5 * counted.product
    assert counted.least_ratio(TruncatedHyperGradient(3), 1) is None


@pytest.mark.parametrize(("slots", "runs"), [(None, 0), (1, 1 + 2 + 3 + 4 + 5), (6, 5)])
def test_segments_are_run_anew_to_starts_that_are_not_held(slots, runs):
    # Six segments, the last one shorter; from one slot each start is run to from the beginning.
    method = LongReverseHyperGradient(10, slots=slots)
    assert runs_anew(method, 55) == pytest.approx(runs / 6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_every_method_is_measured_beside_plain_training(small):
    _, problem, hyper = small
    policy = rfho.StoreAll(rfho.Keep.STATES)
    methods = {
        "scan": None,
        "reverse": ReverseHyperGradient(policy),
        "forward": ForwardHyperGradient(),
    }
    plain, scan, reverse, forward = measure(problem, hyper, methods, rounds=1)
    assert (plain.ratio, plain.megabytes, plain.kept_megabytes) == (1, 0, None)
    assert scan.kept_megabytes is None
    # The rate is learned under a fixed momentum: T + 1 parameters and momenta.
    state = bytes_of(tree.inexact(problem.init(hyper)))
    assert reverse.kept_megabytes == pytest.approx((T + 1) * state / 1e6, rel=1e-3)
    assert forward.kept_megabytes == pytest.approx(state / 1e6)
    for row in (scan, reverse, forward):
        assert row.ratio == pytest.approx(row.seconds / plain.seconds)
        assert row.megabytes > (row.kept_megabytes or 0)
        assert row.seconds > 0
        assert row.compile_seconds > 0
