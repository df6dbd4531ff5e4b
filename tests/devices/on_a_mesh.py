"""Problems placed on a mesh of eight simulated devices by `rfho.placement`; prints what came of it.

    python on_a_mesh.py CELL...

A cell is "verb, axes, data". One line of JSON for each; `test_placement.py` runs it, in a process of its own
since the number of devices is fixed when JAX starts.
"""

import contextlib
import functools
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
from jax.sharding import AxisType

import rfho
from rfho import placement
from rfho.outer.stack import stacked

jax.config.update("jax_enable_x64", True)

HORIZON, EXAMPLES, BATCH, INPUTS, HIDDEN = 96, 64, 16, 16, 128
DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(EXAMPLES, INPUTS)), DRAW.normal(size=EXAMPLES)
INDEX = DRAW.integers(0, EXAMPLES, (5, BATCH))
PARAMS = {"in": DRAW.normal(size=(INPUTS, HIDDEN)), "out": DRAW.normal(size=HIDDEN) / 8}
HYPER = {
    name: jnp.asarray(value) for name, value in (("lr", 0.02), ("momentum", 0.5), ("l2", 1e-3))
}
METHOD = rfho.ReverseHyperGradient(rfho.StoreAll())


def squares(w, batch):
    return (jnp.tanh(batch[0] @ w["in"]) @ w["out"] - batch[1]) ** 2


def loss(w, hyper, batch):
    return jnp.mean(squares(w, batch)) + hyper["l2"] * sum(jnp.sum(leaf**2) for leaf in w.values())


def noisy(w, hyper, batch):
    (x, y), key = batch
    return loss(w, hyper, (x + jax.random.normal(key, x.shape), y))


def objective(w, hyper, batch):
    return jnp.mean(squares(w, batch))


def drawn(k):
    return rfho.Stream((jnp.asarray(X), jnp.asarray(Y)), BATCH, jax.random.key(k))


DATA = {
    "arrays": (X, Y),
    "stream": rfho.Stream((X, Y), BATCH, 0),
    "keyed": rfho.Keyed(rfho.Stream((X, Y), BATCH, 0), 1),
    "indexed": rfho.Indexed((X, Y), INDEX),
    "host": rfho.HostStream(lambda t: (X[INDEX[t % 5]], Y[INDEX[t % 5]])),
    "fresh": rfho.Fresh(drawn),
}


def problem(data):
    """With the start as a function of λ where data are indexed, and as arrays otherwise."""
    optim = lambda hyper: optax.sgd(hyper["lr"], momentum=hyper["momentum"])  # noqa: E731
    init = (lambda hyper: PARAMS) if data == "indexed" else PARAMS
    dynamics = rfho.Descent(noisy if data == "keyed" else loss, optim, init)
    return rfho.Problem(dynamics, objective, DATA[data], (X, Y), HORIZON)


# --- What came of it -----------------------------------------------------------------------------------


def compiled(problem):
    run = eqx.filter_jit(lambda problem, hyper: METHOD.estimate(problem, hyper, None)[0])
    program = run.lower(problem, HYPER).compile()
    return program(problem, HYPER), getattr(program, "compiled", program)


def specs(arrays):
    return [str(leaf.sharding.spec) for leaf in jax.tree.leaves(arrays)]


@contextlib.contextmanager
def on(axes):
    """All devices along one axis, as JAX wants axes of the kind to be used."""
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh) if axes == "explicit" else contextlib.nullcontext():
        yield mesh


@functools.cache
def on_one_device(data):
    found, program = compiled(problem(data))
    memory = program.memory_analysis().temp_size_in_bytes
    assert whole_rows(program.as_text(), [(INPUTS, HIDDEN)])
    return jax.device_get((found.value, found.hypergradient)), memory


def cell(verb, axes, data):
    expected, memory = on_one_device(data)
    with on(axes) as mesh:
        placed = getattr(placement, verb)(problem(data), mesh)
        found, program = compiled(placed)
        batch = eqx.filter_jit(lambda p: p.at(0).train_batch(0))(placed)
    return {
        "error": error((found.value, found.hypergradient), expected),
        "params": specs(found.aux.params),
        "slots": specs(found.aux.state.slots),
        "share of memory": program.memory_analysis().temp_size_in_bytes / memory,
        "largest collective": largest_collective(program.as_text()),
        "whole rows": whole_rows(program.as_text(), [(INPUTS, HIDDEN)]),
        "batch": specs(batch),
    }


def members(axes):
    """Sixteen starts, two on each device, by `tune_many`; and one step of theirs, whose program is looked at."""
    hypers = [{**HYPER, "lr": HYPER["lr"] * (1 + i / 16)} for i in range(16)]
    options = {"optim": optax.sgd(1e-5), "steps": 2}
    one = problem("stream")
    alone = rfho.tune_many(one, hypers, **options)
    with on(axes) as mesh:
        spread = placement.Members(mesh)
        found = rfho.tune_many(one, hypers, **options, placement=spread)
        tuner = rfho.Tuner(METHOD, options["optim"])
        states = spread.spread(stacked([tuner.init(one, hyper) for hyper in hypers], "hypers"))
        step = eqx.filter_jit(lambda p, s: jax.vmap(lambda s: tuner.step(p, s))(s))
        program = step.lower(spread.whole(one), states).compile()
        after, _ = program(spread.whole(one), states)
    text = getattr(program, "compiled", program).as_text()
    pairs = zip(found, alone, strict=True)
    return {
        "error": max(error((a.value, a.hyper), (b.value, b.hyper)) for a, b in pairs),
        "largest collective": largest_collective(text),
        "states": sorted({spec[:5] for spec in specs((after.free, after.slots))}),
    }


def main():
    for name in sys.argv[1:]:
        verb, *rest = name.split(", ")
        said = members(*rest) if verb == "members" else cell(verb, *rest)
        sys.stdout.write(json.dumps({"cell": name, **said}) + "\n")


if __name__ == "__main__":
    main()
