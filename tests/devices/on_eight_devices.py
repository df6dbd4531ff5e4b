"""One problem on eight simulated devices, in each placement, by each method; prints what came of it.

    python on_eight_devices.py automatic|explicit CELL...

One line of JSON for each cell. `test_eight_devices.py` runs it, in a process of its own since the number of
devices is fixed when JAX starts.
"""

import json
import os
import sys

from flags import quickly

# What is compiled runs once: the layout of its arrays and its collectives are the same without optimised code.
os.environ["XLA_FLAGS"] = quickly(8)
os.environ["JAX_PLATFORMS"] = "cpu"

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from compared import error, largest_collective, whole_rows
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rfho
from rfho.hyper_gradients import LongReverseHyperGradient, ReverseHyperGradient

jax.config.update("jax_enable_x64", True)

HORIZON, EXAMPLES, INPUTS, HIDDEN, CLASSES = 24, 64, 16, 128, 8
EXPLICIT, CELLS = sys.argv[1] == "explicit", sys.argv[2:]
MESH = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit if EXPLICIT else AxisType.Auto,))
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(EXAMPLES, INPUTS))
Y = DRAW.integers(0, CLASSES, EXAMPLES)
PARAMS = {
    "in": DRAW.normal(size=(INPUTS, HIDDEN)) / INPUTS**0.5,
    "out": DRAW.normal(size=(HIDDEN, CLASSES)) / HIDDEN**0.5,
}
MATRICES = [leaf.shape for leaf in PARAMS.values()]
HYPER = {"lr": 0.3, "momentum": 0.8, "l2": 1e-3, "weights": DRAW.normal(size=EXAMPLES)}

METHODS = {
    "StoreAll": ReverseHyperGradient(rfho.StoreAll()),
    "Recompute": ReverseHyperGradient(rfho.Recompute()),
    "Binomial": ReverseHyperGradient(rfho.Binomial(5)),
    "Replay": ReverseHyperGradient(rfho.Replay()),
    "Residuals": ReverseHyperGradient(rfho.StoreAll(rfho.Keep.RESIDUALS)),
    "HostMemory": ReverseHyperGradient(rfho.StoreAll(encoding=rfho.memory.HostMemory())),
}

# The same policies with more rows on their tapes: what they need more than those above is tape and nothing else.
LONGER = 4 * HORIZON
MORE_ROWS = {name: METHODS[name] for name in ("Recompute", "Replay")}
MORE_ROWS["Binomial"] = ReverseHyperGradient(rfho.Binomial(20))


def put(leaf, *axes):
    return jax.device_put(jnp.asarray(leaf), NamedSharding(MESH, PartitionSpec(*axes)))


# --- One problem in four placements --------------------------------------------------------------------
# What a user writes for explicit axes, where the layout of a product is not left to the compiler, is in
# the two functions that the placements bring; the problem is the same.


def problem(params, train, *, gathered=lambda w: w, product=jnp.matmul):
    def cross_entropies(w, batch):
        w = gathered(w)
        logits = product(jnp.tanh(batch[0] @ w["in"]), w["out"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    def loss(w, hyper, batch):
        weighted = jax.nn.sigmoid(hyper["weights"]) * cross_entropies(w, batch)
        return jnp.mean(weighted) + hyper["l2"] * sum(jnp.sum(leaf**2) for leaf in w.values())

    def objective(w, hyper, batch):
        return jnp.mean(cross_entropies(w, batch))

    optim = lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"])  # noqa: E731
    dynamics = rfho.Descent(loss, optim, params)
    return rfho.Problem(dynamics, objective, train, train, HORIZON)


def on_one_device():
    hyper = jax.tree.map(jnp.asarray, HYPER)
    return problem(jax.tree.map(jnp.asarray, PARAMS), (jnp.asarray(X), jnp.asarray(Y))), hyper


def hyper_with(*axes):
    return {name: put(leaf, *(axes if name == "weights" else ())) for name, leaf in HYPER.items()}


def data_parallel():
    """Examples over the devices, parameters on each."""
    return problem(jax.tree.map(put, PARAMS), (put(X, "d"), put(Y, "d"))), hyper_with("d")


def fsdp():
    """Examples, parameters, slots and tape over the devices; parameters are gathered when they are used."""
    params = {"in": put(PARAMS["in"], None, "d"), "out": put(PARAMS["out"], "d")}
    gathered = lambda w: jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, PartitionSpec()), w)  # noqa: E731
    options = {"gathered": gathered} if EXPLICIT else {}
    return problem(params, (put(X, "d"), put(Y, "d")), **options), hyper_with("d")


def tensor_parallel():
    """Hidden units over the devices, examples on each."""
    params = {"in": put(PARAMS["in"], None, "d"), "out": put(PARAMS["out"], "d")}
    summed = lambda x, w: jnp.matmul(x, w, out_sharding=PartitionSpec())  # noqa: E731
    options = {"product": summed} if EXPLICIT else {}
    return problem(params, (put(X), put(Y)), **options), hyper_with()


PLACEMENTS = {"data": data_parallel, "fsdp": fsdp, "tensor": tensor_parallel}


# --- What came of it -----------------------------------------------------------------------------------


def compiled(problem, hyper, method):
    run = eqx.filter_jit(lambda problem, hyper: method.estimate(problem, hyper, None)[0])
    program = run.lower(problem, hyper).compile()
    return program, getattr(program, "compiled", program)


def same_sharding(after, before):
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    return all(a.sharding.is_equivalent_to(b.sharding, b.ndim) for a, b in pairs)


def summary(estimate, expected, problem, hyper):
    return {
        "error": error((estimate.value, estimate.hypergradient), expected),
        "hypergradient as hyper": same_sharding(estimate.hypergradient, hyper),
        "params as given": same_sharding(estimate.aux.params, problem.dynamics.init(hyper).params),
    }


def cell(place, method, alone):
    problem, hyper = PLACEMENTS[place]()
    run, program = compiled(problem, hyper, METHODS[method])
    rows = rows_of(problem, hyper, method, program)
    return {
        **summary(run(problem, hyper), alone[method]["expected"], problem, hyper),
        "share of memory": program.memory_analysis().temp_size_in_bytes / alone[method]["memory"],
        "share of rows": rows and rows / alone[method]["rows"],
        "largest collective": largest_collective(program.as_text()),
        "whole rows": whole_rows(program.as_text(), MATRICES),
    }


def reference(method):
    problem, hyper = on_one_device()
    run, program = compiled(problem, hyper, METHODS[method])
    estimate = jax.device_get(run(problem, hyper))
    memory = program.memory_analysis().temp_size_in_bytes
    assert whole_rows(program.as_text(), MATRICES)
    rows = rows_of(problem, hyper, method, program)
    return {
        "expected": (estimate.value, estimate.hypergradient),
        "memory": memory,
        "rows": rows,
    }


def rows_of(problem, hyper, method, program):
    """Bytes by which the memory of a device grows where there are more rows; None where it is not asked."""
    if method not in MORE_ROWS:
        return None
    longer = problem.at(0).under(problem.dynamics, LONGER)
    _, more = compiled(longer, hyper, MORE_ROWS[method])
    least = program.memory_analysis().temp_size_in_bytes
    return more.memory_analysis().temp_size_in_bytes - least


class Watched(rfho.HostShelf):
    """A shelf that notes how the arrays of a state lie when it is laid down and when it is taken up."""

    laid: dict
    taken: dict

    def put(self, handle, slot, state):
        self.laid[slot] = jax.tree.map(lambda leaf: leaf.sharding, state)
        super().put(handle, slot, state)

    def get(self, handle, slot):
        state = super().get(handle, slot)
        self.taken[slot] = jax.tree.map(lambda leaf: leaf.sharding, state)
        return state


def long_cell(place, alone):
    problem, hyper = PLACEMENTS[place]()
    shelf = Watched({}, {})
    method = LongReverseHyperGradient(6, shelf=shelf)
    estimate = rfho.hyper_gradient(problem, hyper, method)
    shards = [sharding for slot in (1, 2, 3) for sharding in jax.tree.leaves(shelf.taken[slot])]
    return {
        **summary(estimate, alone["StoreAll"]["expected"], problem, hyper),
        "states come back as laid": shelf.laid == shelf.taken,
        "spread arrays": sum(not sharding.is_fully_replicated for sharding in shards),
    }


def tune_cell(place):
    """Two outer steps, and what lies on a device between them."""
    problem, hyper = PLACEMENTS[place]()
    options = {"optim": optax.sgd(1e-4, momentum=0.5), "steps": 2}
    solution, alone = rfho.tune(problem, hyper, **options), rfho.tune(*on_one_device(), **options)
    tuner = rfho.Tuner(optim=options["optim"])
    steps = tuner.steps(problem, first := tuner.init(problem, hyper))
    next(steps)
    state, _ = next(steps)
    return {
        "error": error((solution.value, solution.hyper), (alone.value, alone.hyper)),
        "hyper as given": same_sharding(state.hyper, hyper),
        "slots as given": same_sharding(state.slots, first.slots),
        "params as given": same_sharding(solution.params, problem.dynamics.init(hyper).params),
        "largest shard": largest_shard(),
    }


def largest_shard():
    """Bytes of the largest part of an array on a device, of all arrays that are alive."""
    arrays = jax.live_arrays()
    return max(shard.data.nbytes for array in arrays for shard in array.addressable_shards)


def population():
    """One member a device: the states of eight tuners, stacked and spread over the devices."""
    problem, hyper = on_one_device()
    tuner = rfho.Tuner(optim=optax.sgd(1e-4))
    first = tuner.init(problem, hyper)
    states = [
        first._replace(free={**first.free, "lr": hyper["lr"] * (1 + i / 8)}) for i in range(8)
    ]
    expected = [jax.device_get(tuner.step(problem, state)[0].free) for state in states]
    stacked = jax.tree.map(lambda *leaves: put(jnp.stack(leaves), "d"), *states)
    problem = jax.tree.map(lambda leaf: put(leaf) if eqx.is_array(leaf) else leaf, problem)
    step = eqx.filter_jit(
        lambda problem, states: jax.vmap(lambda s: tuner.step(problem, s))(states)
    )
    program = step.lower(problem, stacked).compile()
    after, _ = program(problem, stacked)
    return {
        "error": error(after.free, jax.tree.map(lambda *leaves: np.stack(leaves), *expected)),
        "hyper as given": same_sharding(after.free, stacked.free),
        "largest collective": largest_collective(getattr(program, "compiled", program).as_text()),
    }


def report(name, **said):
    sys.stdout.write(json.dumps({"cell": name, **said}) + "\n")


def main():
    pairs = [cell.split(", ") for cell in CELLS if cell != "members"]
    needed = {"StoreAll", *(method for _, method in pairs)} & set(METHODS)
    alone = {name: reference(name) for name in METHODS if name in needed}
    if EXPLICIT:
        jax.set_mesh(MESH)
    for place, method in pairs:
        if method == "tune":
            said = tune_cell(place)
        elif method == "LongReverse":
            said = long_cell(place, alone)
        else:
            said = cell(place, method, alone)
        report(f"{place}, {method}", **said)
    if "members" in CELLS:
        report("members", **population())


if __name__ == "__main__":
    main()
