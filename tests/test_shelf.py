"""A state comes back from a shelf as it was laid there, whatever its leaves are, or with one named error."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfho
from rfho.errors import ShelfError
from rfho.hyper_gradients import LongReverseHyperGradient, ReverseHyperGradient


def held_by_jax(name):
    """Whether arrays of this type of ml_dtypes exist in JAX on this backend at all."""
    try:
        return np.asarray(jnp.asarray(np.ones(4, getattr(ml_dtypes, name)))).size == 4
    except Exception:
        return False


# One-bit integers crash this backend, and are asked for by name to be left out.
SMALL = [
    name
    for name in dir(ml_dtypes)
    if isinstance(getattr(ml_dtypes, name), type)
    and name not in ("finfo", "iinfo", "int1", "uint1")
    and held_by_jax(name)
]
NUMPY = [*"?bBhHiIlLefdFD"]
DTYPES = [*NUMPY, *(getattr(ml_dtypes, name) for name in SMALL)]
KEYS = ["threefry2x32", "rbg", "unsafe_rbg"]


@pytest.fixture(params=["host", "disk"])
def shelf(request, tmp_path):
    return rfho.HostShelf() if request.param == "host" else rfho.DiskShelf(tmp_path)


def there_and_back(shelf, *states):
    """Each state laid into its slot, and then read."""
    handle = shelf.open(states[0])
    try:
        for slot, state in enumerate(states):
            shelf.put(handle, slot, state)
        return [shelf.get(handle, slot) for slot in range(len(states))]
    finally:
        shelf.close(handle)


def same(found, expected):
    """To the last bit, with the same structure, dtype, placement and leaves that are no arrays."""
    leaves, structure = jax.tree.flatten(expected)
    assert jax.tree.structure(found) == structure
    for ours, theirs in zip(jax.tree.leaves(found), leaves, strict=True):
        if not isinstance(theirs, jax.Array):
            assert ours is theirs
            continue
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert (ours.sharding, ours.committed) == (theirs.sharding, theirs.committed)
        if jnp.issubdtype(theirs.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def array(seed, dtype, shape):
    """Of any bits that the type has, not-a-number included."""
    draw = np.random.default_rng(seed)
    if np.dtype(dtype) == bool:
        return jnp.asarray(draw.integers(0, 2, shape).astype(bool))
    if np.dtype(dtype).itemsize == 1:  # types of fewer than 8 bits have no meaning for the others
        return jnp.asarray(np.asarray(draw.integers(0, 2, shape)).astype(dtype))
    return jnp.asarray(
        np.frombuffer(
            draw.bytes(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize), dtype
        ).reshape(shape)
    )


def key(seed, impl, shape):
    return jax.random.split(jax.random.key(seed, impl=impl), shape)


seeds = st.integers(0, 2**31 - 1)
shapes = st.sampled_from([(), (1,), (0, 3), (2, 3), (3, 1, 2)])
leaves = st.one_of(
    st.builds(array, seeds, st.sampled_from(DTYPES), shapes),
    st.builds(key, seeds, st.sampled_from(KEYS), shapes),
    st.sampled_from([3, 2.5, True, "words", jnp.tanh, 1j]),
)
states = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


def test_this_backend_has_the_small_types():
    assert {"bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"} <= set(SMALL)


@given(state=states)
def test_a_state_of_any_kind_comes_back_from_the_host(state):
    same(there_and_back(rfho.HostShelf(), state), [state])


@given(state=states)
def test_a_state_of_any_kind_comes_back_from_disk(tmp_path_factory, state):
    folder = tmp_path_factory.getbasetemp()
    same(there_and_back(rfho.DiskShelf(folder), state), [state])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(shelf, dtype):
    same(there_and_back(shelf, array(0, dtype, (5, 3))), [array(0, dtype, (5, 3))])


def test_slots_do_not_mix_and_may_be_filled_again(shelf):
    first, second, third = (
        {"w": array(seed, "d", (4, 5)), "t": jnp.asarray(seed)} for seed in range(3)
    )
    handle = shelf.open(first)
    for slot, state in [(2, first), (0, second), (1, first), (2, third)]:
        shelf.put(handle, slot, state)
    same([shelf.get(handle, slot) for slot in (0, 1, 2, 2)], [second, first, third, third])
    shelf.close(handle)


def test_what_was_read_may_be_donated(shelf):
    state = array(0, "d", (1000,))
    handle = shelf.open(state)
    shelf.put(handle, 0, state)
    expected = np.asarray(state).copy()
    for _ in range(2):
        found = shelf.get(handle, 0)
        np.testing.assert_array_equal(found, expected)
        jax.jit(lambda x: x + 1, donate_argnums=0)(found)
    shelf.close(handle)


@pytest.mark.parametrize("kind", ["device", "pinned_host", "unpinned_host"])
def test_the_kind_of_memory_is_kept(shelf, kind):
    if kind not in {memory.kind for memory in jax.devices()[0].addressable_memories()}:
        pytest.skip(f"this backend has no {kind}")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind=kind)
    state = jax.device_put(array(0, "f", (4, 3)), sharding)
    same(there_and_back(shelf, state), [state])


# --- In a run ------------------------------------------------------------------------------------------


def whole(name):
    """Small whole numbers that the type holds: one of them has powers of two alone."""
    return [1, 2, 1, 2] if "e8m0" in name else [0, 1, 0, 1]


def every_kind(hyper):
    """s_0 with a leaf of every dtype and every kind of key; small whole numbers are exact in all."""
    # The compiler for CPUs aborts on arithmetic in six bits.
    names = {str(np.dtype(dtype)): dtype for dtype in DTYPES if "float6" not in str(dtype)}
    small = {n: jnp.asarray(np.asarray(whole(n)).astype(d)) for n, d in names.items()}
    keys = {impl: jax.random.key(3, impl=impl) for impl in KEYS}
    return {"w": jnp.zeros(4) + hyper["scale"], "small": small, "keys": keys}


def shifted(state, hyper, batch):
    """Every leaf takes part: dyadic numbers, so that no order of operations rounds."""
    small = {name: jnp.concatenate([leaf[1:], leaf[:1]]) for name, leaf in state["small"].items()}
    keys = {impl: jax.random.split(key)[0] for impl, key in state["keys"].items()}
    numbers = sum(leaf.real.astype(float) for leaf in small.values())
    bits = sum(jax.random.bits(key, (4,), "uint8").astype(float) % 4 for key in keys.values())
    return {"w": hyper["rate"] * state["w"] + numbers + bits, "small": small, "keys": keys}


@pytest.fixture(scope="module")
def problem():
    dynamics = rfho.Dynamics(every_kind, shifted, output=lambda state: state["w"])
    return rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), None, None, horizon=7)


HYPER = {"rate": jnp.asarray(0.5), "scale": jnp.asarray(2.0)}


@pytest.fixture(scope="module")
def stored(problem):
    return rfho.hyper_gradient(problem, HYPER, ReverseHyperGradient(rfho.StoreAll()))


@pytest.mark.parametrize("slots", [None, 2])
def test_every_kind_of_state_goes_the_long_way_bit_for_bit(problem, stored, shelf, slots):
    found = rfho.hyper_gradient(
        problem, HYPER, LongReverseHyperGradient(2, slots=slots, shelf=shelf)
    )
    same(found.hypergradient, stored.hypergradient)
    same((found.value, found.aux.params), (stored.value, stored.aux.params))


# --- When it goes wrong --------------------------------------------------------------------------------


def test_nothing_lies_in_the_folder_at_any_time(tmp_path):
    shelf = rfho.DiskShelf(tmp_path)
    handle = shelf.open(jnp.zeros(10))
    shelf.put(handle, 0, jnp.zeros(10))
    shelf.get(handle, 0)
    assert list(tmp_path.iterdir()) == []
    shelf.close(handle)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda file: file.truncate(30), lambda file: file.write(b"!")])
def test_a_damaged_file_is_a_named_error(tmp_path, damage):
    shelf = rfho.DiskShelf(tmp_path)
    handle = shelf.open(jnp.ones(10))
    shelf.put(handle, 0, jnp.ones(10))
    shelf.get(handle, 0)
    handle.file.seek(13)
    damage(handle.file)
    with pytest.raises(ShelfError, match=r"slot 0 .* does not hold what was written there"):
        shelf.get(handle, 0)
    shelf.close(handle)


def test_a_folder_that_is_gone_is_a_named_error(tmp_path):
    shelf = rfho.DiskShelf(tmp_path / ".")
    (tmp_path / ".").rmdir()
    with pytest.raises(ShelfError, match="could not make a file"):
        shelf.open(jnp.zeros(1))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="make it first"):
        rfho.DiskShelf(tmp_path / "nowhere")


def test_a_full_disk_is_a_named_error_and_leaves_nothing(tmp_path):
    """A real limit on the size of files, in a process of its own; the run goes through `hyper_gradient`."""
    done = in_child(
        """
import os, resource, signal, sys
import jax.numpy as jnp, optax, rfho
import rfho.hyper_gradients.once as once
from rfho.errors import ShelfError
once.refuse_what_has_no_room = lambda budget: None  # as if the room had gone since
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dynamics = rfho.Descent(
    lambda w, hyper, batch: jnp.sum((w - 1) ** 2), lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(100_000)
)
problem = rfho.Problem(dynamics, lambda w, hyper, batch: jnp.sum(w**2), None, None, horizon=8)
method = rfho.hyper_gradients.LongReverseHyperGradient(2, shelf=rfho.DiskShelf(sys.argv[1]))
before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
rfho.hyper_gradient(problem, {"lr": 0.1}, method)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    rfho.hyper_gradient(problem, {"lr": 0.1}, method)
except ShelfError as error:
    assert "a state of 0.4 MB could not be written" in str(error), error
    assert "free space there, or use fewer slots" in str(error), error
    assert error.errno is not None
else:
    sys.exit("no error")
left = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
assert len(left) == len(before), (left, before)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    done = in_child(
        """
import os, signal, sys
import jax.numpy as jnp, rfho
shelf = rfho.DiskShelf(sys.argv[1])
handle = shelf.open(jnp.zeros(1000))
shelf.put(handle, 0, jnp.ones(1000))
shelf.get(handle, 0)
os.kill(os.getpid(), signal.SIGKILL)
""",
        tmp_path,
    )
    assert done.returncode == -9, done.stderr
    assert list(tmp_path.iterdir()) == []


def in_child(program, *arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
