"""Problems placed on a mesh by `rfho.placement`: what one device finds, each device with its part alone."""

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
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

import rfho
from rfho.attribution.examples import examples_of
from rfho.placement import Members, data_parallel, fsdp
from rfho.placement.layout import Devices, examples_over, parameters_over

PROGRAM = Path(__file__).with_name("on_a_mesh.py")
ROOT = Path(__file__).parents[2]
EIGHT = Devices(AbstractMesh((2, 4), ("a", "b")), ("a", "b"))

DATA = ["arrays", "stream", "keyed", "indexed", "host", "fresh"]
AXES = ["automatic", "explicit"]
DATA_PARALLEL = [f"data_parallel, {axes}, {data}" for axes in AXES for data in DATA]
FSDP = [f"fsdp, {axes}, {data}" for axes in AXES for data in DATA]
PROBLEMS = [*DATA_PARALLEL, *FSDP]
MEMBERS = ["members, automatic", "members, explicit"]
ALL = [*PROBLEMS, *MEMBERS]

# What each change is held to; the others are for `make soak`.
SHORT = ["fsdp, explicit, stream"]

BYTES_OF_PARAMETERS = (16 * 128 + 128) * 8


def each_cell(cells):
    soak = lambda cell: () if cell in SHORT else pytest.mark.soak  # noqa: E731
    return pytest.mark.parametrize("cell", [pytest.param(cell, marks=soak(cell)) for cell in cells])


def result(cell):
    together = SHORT if cell in SHORT else [one for one in ALL if one not in SHORT]
    return results(tuple(together))[cell]


@functools.cache
def results(cells):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(PROGRAM), *cells]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rematerialization" not in done.stderr
    said = map(json.loads, done.stdout.splitlines())
    return {cell.pop("cell"): cell for cell in said}


@pytest.mark.slow
@each_cell(ALL)
def test_a_mesh_finds_what_one_device_finds(cell):
    assert result(cell)["error"] < 1e-12


@pytest.mark.slow
@each_cell(PROBLEMS)
def test_each_device_has_its_examples_of_a_batch(cell):
    assert all(spec.startswith("P('d'") for spec in result(cell)["batch"][:2])


@pytest.mark.slow
@each_cell(DATA_PARALLEL)
def test_each_device_has_all_parameters(cell):
    assert not any("d" in spec for spec in result(cell)["params"])


@pytest.mark.slow
@each_cell(FSDP)
def test_each_device_has_its_part_of_parameters_slots_and_tape(cell):
    assert result(cell)["params"] == result(cell)["slots"] == ["P(None, 'd')", "P('d',)"]
    # Of all memory of the program, to which a few whole parameters belong that a step brings together.
    assert result(cell)["share of memory"] <= 1 / 7
    assert result(cell)["whole rows"] == []


@pytest.mark.slow
@each_cell(PROBLEMS)
def test_nothing_larger_than_parameters_is_sent_around(cell):
    assert 0 < result(cell)["largest collective"] <= BYTES_OF_PARAMETERS


@pytest.mark.slow
@each_cell(MEMBERS)
def test_members_need_not_talk_and_stay_where_they_are(cell):
    assert result(cell)["largest collective"] == 0
    assert result(cell)["states"] == ["P('d'"]


# --- On one device -------------------------------------------------------------------------------------


def one_device(axis="examples"):
    return jax.make_mesh((1,), (axis,), axis_types=(AxisType.Auto,))


def square(w, hyper, batch):
    return jnp.mean((w - batch) ** 2)


def small(**changes):
    dynamics = rfho.Descent(square, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(()))
    data = {"train": jnp.arange(6.0), "valid": jnp.ones(4)} | changes
    return rfho.Problem(dynamics, square, horizon=3, **data)


def test_members_are_those_of_one_device_and_go_on_from_a_snapshot(tmp_path):
    spread = {"placement": Members(one_device()), "optim": optax.sgd(1e-4)}
    hypers = [{"lr": 0.1}, {"lr": 0.2}]
    alone = rfho.tune_many(small(), hypers, optim=optax.sgd(1e-4), steps=4)
    rfho.tune_many(small(), hypers, **spread, steps=2, run=rfho.Run(tmp_path))
    found = rfho.tune_many(small(), hypers, **spread, steps=4, run=rfho.Run(tmp_path))
    assert [one.hyper for one in found] == [one.hyper for one in alone]


def test_members_have_to_divide_over_the_devices():
    with pytest.raises(ValueError, match=r"got 13 starts for 8 devices, .* leave 5 out or add 3"):
        EIGHT.share(13)


def test_members_that_are_stepped_in_turn_cannot_lie_over_devices():
    long = rfho.LongReverseHyperGradient(2)
    with pytest.raises(ValueError, match="LongReverseHyperGradient steps its members in turn"):
        rfho.tune_many(small(), [{"lr": 0.1}], method=long, placement=Members(one_device()))


def test_data_of_an_objective_of_its_own_are_placed_too():
    problem = small()
    own = {"lr": rfho.Objective(square, jnp.ones(4))}
    problem = rfho.Problem(problem.dynamics, own, problem.train, problem.valid, 3)
    placed = data_parallel(problem, one_device())
    assert placed.objective["lr"].data.sharding.spec == PartitionSpec(("examples",))
    found, alone = (rfho.hyper_gradient(p, {"lr": 0.1}).hypergradient for p in (placed, problem))
    assert found == alone


@pytest.mark.parametrize("keyed", [False, True])
def test_examples_have_the_numbers_that_they_had_before(keyed):
    train = rfho.Stream(jnp.arange(6.0), size=4, key=0)
    train = rfho.Keyed(train, key=1) if keyed else train
    placed = examples_of(data_parallel(small(train=train), one_device()).train)
    assert placed.order(3).tolist() == examples_of(train).order(3).tolist()
    assert placed.data.tolist() == list(range(6))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("verb", [data_parallel, fsdp])
def test_a_mesh_is_asked_for(verb):
    said = rf"{verb.__name__} got mesh=8, but it must be a jax\.sharding\.Mesh"
    with pytest.raises(TypeError, match=said):
        verb(small(), 8)


@pytest.mark.usefixtures("unchecked")
def test_a_problem_is_asked_for():
    with pytest.raises(
        TypeError, match=r"data_parallel got a Moment, but it must be a rfho\.Problem"
    ):
        data_parallel(small().at(0), one_device())


def test_an_axis_has_to_be_one_of_the_mesh():
    with pytest.raises(
        ValueError, match=r"axes='rows', but the axes of the mesh are \('examples',\)"
    ):
        data_parallel(small(), one_device(), axes="rows")


def test_examples_have_to_divide_over_the_devices():
    with pytest.raises(
        ValueError, match=r"train\[0\] has 13 examples, .* 8 devices: leave 5 out or add 3"
    ):
        examples_over(EIGHT)(jnp.zeros((13, 2)), "train[0]")


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), PartitionSpec()),
        ((7,), PartitionSpec(None)),
        ((8,), PartitionSpec(("a", "b"))),
        ((8, 16), PartitionSpec(None, ("a", "b"))),
        ((16, 9), PartitionSpec(("a", "b"))),
        ((0, 3), PartitionSpec(None, None)),
    ],
)
def test_parameters_are_cut_along_their_longest_axis_that_divides(shape, spec):
    assert parameters_over(EIGHT)(jnp.zeros(shape), "w").spec == spec
