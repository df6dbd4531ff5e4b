"""Snapshots: what comes back is what was saved, bit by bit, or nothing."""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from disk_faults import ERRORS, Faults, count, file_limit, filled, small_disk
from hypothesis import given
from hypothesis import strategies as st
from killed import kill_again_and_again
from mutations import DAMAGES, damaged
from power_loss import every_disk
from safetensors.numpy import load_file

from rfho.errors import DataFormatError, SnapshotError, WriteError
from rfho.outer import snapshot as module
from rfho.outer.snapshot import Snapshot, load_snapshot, save_snapshot

DTYPES = (
    *("bool", "int4", "int8", "int16", "int32", "int64", "uint4", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "float8_e4m3fnuz"),
)
SECTIONS = {"position": {"step": 3, "seconds": 1.5}, "versions": {"jax": "0.10.2", "x": None}}


class Layer(eqx.Module):
    weight: jax.Array
    activation: Any
    width: int = eqx.field(static=True)


def state_of(seed: int) -> dict:
    """Every kind of leaf that an outer state has."""
    key = jax.random.key(seed)
    arrays = {
        name: jax.random.randint(key, (2, 3), 0, 2).astype(name)
        for name in DTYPES
        if name != "bool"
    }
    return {
        "arrays": arrays,
        "flags": jax.random.bernoulli(key, shape=(5,)),
        "keys": (key, jax.random.split(key, 3), jax.random.key(seed, impl="rbg")),
        "odd": (jnp.zeros((0, 3)), jnp.asarray(2.0 + seed), jnp.float32(seed), None),
        "layer": Layer(jax.random.normal(key, (4,)), jnp.tanh, 7),
        "host": (np.arange(3) + seed, np.float64(seed), seed, 0.1 * seed, True, 1j),
        "special": jnp.asarray([np.nan, np.inf, -0.0, 5e-324]),
    }


def bits(state: Any) -> list[Any]:
    """All that makes a state what it is."""
    return [_bits(leaf) for leaf in jax.tree.leaves(state)]


def _bits(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(leaf)), _bits(jax.random.key_data(leaf))
    if isinstance(leaf, jax.Array):
        array = np.asarray(leaf)
        return "jax", str(leaf.dtype), leaf.shape, leaf.weak_type, leaf.committed, array.tobytes()
    if isinstance(leaf, np.ndarray | np.generic):
        return "numpy", type(leaf), leaf.dtype, leaf.shape, leaf.tobytes()
    return type(leaf), repr(leaf)


FIRST, SECOND, BLANK = state_of(1), state_of(2), state_of(0)


def loaded(folder: Path) -> Snapshot | None:
    return load_snapshot(folder, lambda sections: BLANK)


def outcome(folder: Path) -> Snapshot | str | None:
    """What is loaded, or what is said."""
    try:
        return loaded(folder)
    except SnapshotError as error:
        return str(error)


def failed(action: Any) -> WriteError | None:
    """What a write raised."""
    try:
        action()
    except WriteError as error:
        return error
    return None


class TestSavedAndLoaded:
    def test_every_leaf_comes_back_bit_by_bit(self, tmp_path):
        number = save_snapshot(tmp_path / "snapshots", FIRST, SECTIONS)
        found = loaded(tmp_path / "snapshots")
        assert found.number == number == 1
        assert found.sections == SECTIONS
        assert found.remarks == ()
        assert jax.tree.structure(found.state) == jax.tree.structure(FIRST)
        assert bits(found.state) == bits(FIRST)

    @given(
        shape=st.lists(st.integers(0, 4), max_size=4),
        dtype=st.sampled_from([name for name in DTYPES if name != "bool"]),
        seed=st.integers(0, 99),
    )
    def test_any_shape_and_dtype(self, tmp_path_factory, shape, dtype, seed):
        size = int(np.prod(shape))
        bytes_ = np.random.default_rng(seed).integers(0, 16, size * np.dtype(dtype).itemsize)
        array = bytes_.astype(np.uint8).view(dtype).reshape(shape)
        folder = tmp_path_factory.mktemp("snapshots")
        save_snapshot(folder, (array,), {})
        found = load_snapshot(folder, lambda _: (np.zeros_like(array),)).state[0]
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()

    def test_there_may_be_none(self, tmp_path):
        assert loaded(tmp_path) is None
        assert loaded(tmp_path / "nowhere") is None

    def test_the_last_few_are_kept(self, tmp_path):
        for seed in range(5):
            save_snapshot(tmp_path, state_of(seed), {}, keep=2)
        assert sorted(os.listdir(tmp_path)) == ["00000004", "00000005"]
        assert bits(loaded(tmp_path).state) == bits(state_of(4))

    def test_what_was_never_finished_does_not_exist_and_is_removed(self, tmp_path):
        save_snapshot(tmp_path, FIRST, {})
        save_snapshot(tmp_path, SECOND, {})
        (tmp_path / "00000002" / "commit.json").unlink()
        assert bits(loaded(tmp_path).state) == bits(FIRST)
        save_snapshot(tmp_path, SECOND, {})
        assert sorted(os.listdir(tmp_path)) == ["00000001", "00000003"]

    def test_a_view_that_is_not_laid_out_in_order(self, tmp_path):
        array = np.arange(24).reshape(2, 3, 4).T[::2]
        save_snapshot(tmp_path, array, {})
        np.testing.assert_array_equal(load_snapshot(tmp_path, lambda _: array * 0).state, array)

    def test_no_pickle_is_written(self, tmp_path):
        with pytest.raises(
            TypeError, match=r"leaf .*x.* holds objects, which only pickle could save"
        ):
            save_snapshot(tmp_path, {"x": np.array([{}], dtype=object)}, {})

    def test_safetensors_reads_the_arrays(self, tmp_path):
        save_snapshot(tmp_path, {"w": np.arange(6.0).reshape(2, 3)}, {})
        read = load_file(tmp_path / "00000001" / "arrays.safetensors")
        np.testing.assert_array_equal(read['["w"]'], np.arange(6.0).reshape(2, 3))

    def test_the_header_is_that_of_safetensors(self, tmp_path):
        save_snapshot(tmp_path, {"w": np.arange(6.0).reshape(2, 3), "b": jnp.zeros(2, "int4")}, {})
        content = (tmp_path / "00000001" / "arrays.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        begin, end = header['["w"]']["data_offsets"]
        assert header['["w"]'] | {"data_offsets": 0} == {
            "dtype": "F64",
            "shape": [2, 3],
            "data_offsets": 0,
        }
        assert content[8 + length :][begin:end] == np.arange(6.0).tobytes()
        assert header['["b"]']["dtype"] == "U8"

    @pytest.mark.parametrize("keep", [0, -1, 1.5, True])
    @pytest.mark.usefixtures("unchecked")
    def test_at_least_one_is_kept(self, tmp_path, keep):
        with pytest.raises(ValueError, match="keep"):
            save_snapshot(tmp_path, FIRST, {}, keep=keep)


class TestAnotherStructure:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                lambda s: s | {"more": jnp.zeros(3)},
                r"has \[\"odd\"\]\[0\].* where this run has \[\"more\"\]",
            ),
            (lambda s: s | {"special": jnp.zeros(4, "float32")}, "float64 .* where .* float32"),
            (lambda s: s | {"special": jnp.zeros(5)}, r"\(4,\) where .* \(5,\)"),
            (
                lambda s: s | {"keys": (*s["keys"][:2], jax.random.key(0))},
                "rbg where .* threefry2x32",
            ),
            (
                lambda s: {key: s[key] for key in s if key != "special"},
                "has .*special.* where .* nothing",
            ),
            (
                lambda s: s | {"host": (*s["host"][:2], 1.0, *s["host"][3:])},
                "number int where .* float",
            ),
        ],
    )
    def test_it_is_refused_with_the_first_leaf_that_differs(self, tmp_path, change, said):
        save_snapshot(tmp_path, FIRST, {})
        with pytest.raises(SnapshotError, match=said):
            load_snapshot(tmp_path, lambda _: change(BLANK))

    def test_a_format_of_another_version_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "FORMAT", 2)
        save_snapshot(tmp_path, FIRST, {})
        monkeypatch.undo()
        with pytest.raises(
            SnapshotError, match=r"has the format 2 .* reads 1 .* the version that wrote"
        ):
            loaded(tmp_path)


class TestDamage:
    """Whatever happens to the files: one of the states that were saved, or a sentence."""

    def look(self, folder: Path, seeds: range) -> None:
        save_snapshot(folder, FIRST, {"number": {"n": 1}})
        save_snapshot(folder, SECOND, {"number": {"n": 2}})
        files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        names, taken = list(files), set()
        for seed in seeds:
            draw = np.random.default_rng(seed)
            for path in draw.choice(names, draw.integers(1, 4), replace=False):
                Path(path).write_bytes(damaged(files[Path(path)], seed))
            if seed % 17 == 0:  # files of one snapshot in the other
                one, other = draw.choice(names, 2, replace=False)
                Path(one).write_bytes(files[Path(other)])
            taken.add(self.one(folder))
            for path, content in files.items():
                path.write_bytes(content)
        assert taken >= {1, 2}

    def one(self, folder: Path) -> int:
        """The number of the snapshot that is taken, 0 if none is; never a wrong one."""
        found = outcome(folder)
        if isinstance(found, str):
            assert "\n" not in found
            return 0
        assert bits(found.state) == bits((None, FIRST, SECOND)[found.sections["number"]["n"]])
        assert len(found.remarks) == 2 - found.number
        return found.number

    def test_hundreds_of_damaged_snapshots(self, tmp_path):
        self.look(tmp_path, range(30 * len(DAMAGES)))

    @pytest.mark.soak
    def test_ten_thousand_damaged_snapshots(self, tmp_path):
        self.look(tmp_path, range(10_000, 20_000))

    @pytest.mark.parametrize("file", ["arrays.safetensors", "head.json", "commit.json"])
    def test_the_previous_one_is_taken_and_said_so(self, tmp_path, file):
        save_snapshot(tmp_path, FIRST, {})
        save_snapshot(tmp_path, SECOND, {})
        path = tmp_path / "00000002" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        found = loaded(tmp_path)
        assert bits(found.state) == bits(FIRST)
        (remark,) = found.remarks
        assert remark.startswith("snapshot 2 is not taken: ")
        assert file in remark or file == "commit.json"

    def test_every_single_bit_of_a_small_one_is_looked_at(self, tmp_path):
        save_snapshot(tmp_path, (np.arange(3),), {"a": {"b": 1}})
        for path in sorted((tmp_path / "00000001").iterdir()):
            content = path.read_bytes()
            for at, bit in itertools.product(range(0, len(content), 7), (0, 6)):
                changed = bytearray(content)
                changed[at] ^= 1 << bit
                path.write_bytes(changed)
                with pytest.raises(SnapshotError):
                    load_snapshot(tmp_path, lambda _: (np.zeros(3, int),))
            path.write_bytes(content)

    @pytest.mark.parametrize("file", ["arrays.safetensors", "head.json", "commit.json", ""])
    def test_no_link_is_followed(self, tmp_path, file):
        folder = tmp_path / "snapshots"
        save_snapshot(folder, FIRST, {})
        path = folder / "00000001" / file if file else folder / "00000001"
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SnapshotError, match="is a link or no file"):
            loaded(folder)

    @pytest.mark.parametrize(
        "change",
        [
            {"bytes": 2**60},
            {"leaves": []},
            {"sections": {"a": [1]}},
            {"format": "1"},
            {"leaves": [{"path": "", "kind": "array", "size": 2**60}]},
        ],
    )
    def test_a_head_that_lies_but_is_vouched_for(self, tmp_path, change):
        save_snapshot(tmp_path, (np.arange(3),), {})
        head = json.loads((tmp_path / "00000001" / "head.json").read_bytes())
        stored = json.dumps(head | change).encode()
        (tmp_path / "00000001" / "head.json").write_bytes(stored)
        digest = module.hashlib.sha256(stored).hexdigest()
        (tmp_path / "00000001" / "commit.json").write_text(json.dumps({"sha256": digest}))
        with pytest.raises(SnapshotError):
            load_snapshot(tmp_path, lambda _: (np.zeros(3, int),))

    def test_strange_names_are_left_alone(self, tmp_path):
        save_snapshot(tmp_path, FIRST, {})
        (tmp_path / "00000002.old").mkdir()
        (tmp_path / "notes").write_text("mine")
        save_snapshot(tmp_path, SECOND, {}, keep=1)
        assert sorted(os.listdir(tmp_path)) == ["00000002", "00000002.old", "notes"]


class TestDisk:
    """A disk that fails: a sentence, the previous snapshot as it was, nothing of the new one."""

    def kept(self, folder: Path) -> None:
        assert bits(loaded(folder).state) == bits(FIRST)
        assert not list(folder.rglob("*.partial"))

    @pytest.mark.parametrize("number", ERRORS)
    @pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "close", "mkdir"])
    def test_every_fault(self, tmp_path, call, number):
        folder = tmp_path / "snapshots"
        times = count(tmp_path, call, lambda: save_snapshot(tmp_path / "whole", FIRST, {}))
        assert times > 0
        save_snapshot(folder, FIRST, {})
        for at in range(times):
            before = sorted(os.listdir(folder))
            with Faults(folder, call, at, number).on() as faults:
                failure = failed(lambda: save_snapshot(folder, FIRST, {}))
            if failure is not None:
                assert failure.errno == number
                assert os.strerror(number) in str(failure)
                assert sorted(os.listdir(folder)) == before
            assert faults.reached or call in ("fsync", "open", "close", "mkdir")
            self.kept(folder)

    def test_a_full_disk(self, tmp_path):
        with small_disk(tmp_path / "disk", "128k") as disk:
            save_snapshot(disk / "snapshots", FIRST, {})
            filled(disk)
            with pytest.raises(WriteError, match="No space left on device"):
                save_snapshot(disk / "snapshots", SECOND, {})
            self.kept(disk / "snapshots")
            (disk / "ballast").unlink()
            save_snapshot(disk / "snapshots", SECOND, {})
            assert bits(loaded(disk / "snapshots").state) == bits(SECOND)

    def test_a_limit_on_the_size_of_files(self, tmp_path):
        save_snapshot(tmp_path, FIRST, {})
        with file_limit(1000), pytest.raises(WriteError, match="File too large"):
            save_snapshot(tmp_path, SECOND, {})
        self.kept(tmp_path)

    def test_after_a_power_failure_one_of_the_two_is_there(self, tmp_path):
        folder = tmp_path / "snapshots"
        save_snapshot(folder, FIRST, {"n": {"n": 1}})
        found = set()

        def check(copy: Path) -> None:
            snapshot = loaded(copy)
            found.add(snapshot.sections["n"]["n"])
            assert bits(snapshot.state) == bits(FIRST if snapshot.number == 1 else SECOND)

        def lasting(copy: Path) -> None:
            assert loaded(copy).sections == {"n": {"n": 2}}

        def action() -> None:
            save_snapshot(folder, SECOND, {"n": {"n": 2}}, keep=1)

        assert every_disk(folder, action, check, lasting=lasting) > 10
        assert found == {1, 2}

    def test_killed_fifty_times_a_whole_one_is_there(self, tmp_path):
        kill_again_and_again("killed_snapshots:save", tmp_path, 50, longest=0.1)

    @pytest.mark.soak
    def test_killed_a_thousand_times_a_whole_one_is_there(self, tmp_path):
        kill_again_and_again("killed_snapshots:save", tmp_path, 1000, longest=0.1)


class TestGolden:
    """Snapshots of earlier versions are read; `tests/golden` has one of each format."""

    FOLDER = Path(__file__).parent / "golden" / "snapshots-1"

    def state(self) -> dict:
        return {
            "hyper": {"lr": np.float32([0.1, 0.2]), "l2": np.float64(1e-3)},
            "key": jax.random.wrap_key_data(np.uint32([1, 2]), impl="threefry2x32"),
            "low": jnp.asarray([0.5, -1.0], "bfloat16"),
            "step": jnp.asarray(7, "int32"),
            "count": 3,
        }

    def test_the_first_format_is_read(self, tmp_path):
        folder = tmp_path / "snapshots"
        shutil.copytree(self.FOLDER, folder)
        found = load_snapshot(folder, lambda _: self.state() | {"count": 0})
        assert bits(found.state) == bits(self.state())
        assert found.sections == {"position": {"step": 7}}

    def test_this_version_writes_it_byte_by_byte(self, tmp_path):
        save_snapshot(tmp_path, self.state(), {"position": {"step": 7}})
        for path in sorted((self.FOLDER / "00000001").iterdir()):
            assert (tmp_path / "00000001" / path.name).read_bytes() == path.read_bytes()


def test_a_damaged_snapshot_is_a_data_format_error_inside(tmp_path):
    save_snapshot(tmp_path, FIRST, {})
    (tmp_path / "00000001" / "head.json").write_bytes(b"")
    with pytest.raises(DataFormatError):
        module._read_head(tmp_path / "00000001")
