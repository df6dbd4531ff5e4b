"""A plan on paper says what the compiler says: of each policy, on each device, before anything is allocated."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType

import rfho
from rfho.hyper_gradients import Device, ReverseHyperGradient, plan

PROGRAM = Path(__file__).with_name("on_paper.py")
ROOT = Path(__file__).parents[2]

SHORT = ("StoreAll", "Recompute", "LongReverse")
OTHERS = ("HalfPrecision", "Residuals", "Replay", "Binomial")
RUNS = {
    (8, "network", "fsdp"): SHORT,
    (8, "network", "data_parallel"): (*SHORT, *OTHERS),
    (64, "network", "fsdp"): (*SHORT, *OTHERS),
    (8, "heavy_ball", "fsdp"): ("StoreAll", "Anchored"),
    (64, "one_billion", "fsdp"): (*SHORT, *OTHERS[:1], "Binomial"),
}
FIRST = next(iter(RUNS))

# Numbers of the program's network: those of a state and those that are trained, on one of eight devices.
WEIGHTS = 4 * (64 * 512 + 512 * 512 + 512) // 8

each_policy = pytest.mark.parametrize(
    ("run", "policy"),
    [
        pytest.param(run, policy, marks=() if run == FIRST else pytest.mark.soak)
        for run, policies in RUNS.items()
        for policy in policies
    ],
)


@functools.cache
def results(run):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, str(PROGRAM), *map(str, run), *RUNS[run]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = map(json.loads, done.stdout.splitlines())
    return {one.pop("policy"): one for one in said}


@pytest.mark.slow
@each_policy
def test_memory_is_what_the_compiler_says(run, policy):
    need = results(run)[policy]
    assert 0.75 * need["compiled"] <= need["memory"] <= 1.25 * need["compiled"]


@pytest.mark.slow
def test_each_device_has_an_eighth_of_parameters_slots_and_tape():
    found = results(FIRST)
    assert found["StoreAll"]["on each"] == [WEIGHTS, WEIGHTS]
    # After T steps and before the first: parameters and momenta; of each step its gradient.
    assert found["StoreAll"]["tape"] == pytest.approx((401 * 2 + 400) * WEIGHTS, rel=1e-3)
    assert found["LongReverse"]["host"] == 5 * 2 * WEIGHTS


@pytest.mark.slow
def test_steps_that_are_taken_again_compute_and_send_again():
    found = results(FIRST)
    once, again, long = (found[policy] for policy in SHORT)
    assert once["flops"] < again["flops"] < long["flops"]
    assert once["sent"] < again["sent"] < long["sent"]


# --- On one device -------------------------------------------------------------------------------------


def small(horizon=30):
    def square(w, hyper, batch):
        return jnp.mean((batch @ w - 1) ** 2)

    dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(8))
    return rfho.Problem(dynamics, square, jnp.ones((4, 8)), jnp.ones((4, 8)), horizon=horizon)


def test_seconds_are_those_of_the_rates_that_are_said():
    method = ReverseHyperGradient()
    (bare,) = (found := plan(small(), {"lr": 0.1}, [method])).needs
    assert found.seconds(bare) is None
    assert bare.sent == 0
    (need,) = (found := plan(small(), {"lr": 0.1}, [method], device=Device(flops=10.0))).needs
    assert found.seconds(need) == need.flops / 10
    sending = need._replace(sent=6.0)
    assert found.seconds(sending) is None
    said = found._replace(devices=2, device=Device(flops=10.0, bandwidth=3.0))
    assert said.seconds(sending) == need.flops / 20 + 2


def test_a_plan_says_what_fits():
    needs = plan(
        small(), {"lr": 0.1}, [ReverseHyperGradient(), ReverseHyperGradient(rfho.Recompute(5))]
    )
    limit = needs.needs[0].memory - 1
    lines = str(needs._replace(device=Device(memory=limit))).splitlines()
    assert lines[0].startswith("8 parameters, 30 steps, devices: 1; on each ")
    assert [line.split()[-1] for line in lines[1:]] == ["fits", "no", "yes"]


def test_a_tape_in_the_memory_of_the_host_is_not_on_the_device():
    policies = rfho.StoreAll(), rfho.StoreAll(encoding=rfho.memory.HostMemory())
    methods = [ReverseHyperGradient(policy) for policy in policies]
    here, there = plan(small(), {"lr": 0.1}, methods, check=True).needs
    assert (there.tape, there.host) == (0, here.tape)
    assert there.memory == here.memory - here.tape
    assert here.compiled == pytest.approx(here.memory, rel=0.25)
    assert there.compiled is None  # a CPU has one memory


def test_a_method_without_a_policy_has_no_plan():
    with pytest.raises(TypeError, match=r"plan got ForwardHyperGradient\(\), but it knows Reverse"):
        plan(small(), {"lr": 0.1}, [rfho.ForwardHyperGradient()])


def test_explicit_axes_are_refused():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match="plan got a mesh of explicit axes"):
        plan(small(), {"lr": 0.1}, mesh=mesh)
