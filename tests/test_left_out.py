"""What a run is kept by, left out piece by piece: each time a test of this suite has to fail."""

import os
import subprocess
import sys

import pytest
from killed import TESTS

NO_FSYNC = """
import os
from rfho.files import durable
class Without:
    fsync = staticmethod(lambda file: None)
    __getattr__ = lambda self, name: getattr(os, name)
durable.os = Without()
"""
NO_RENAME = """
from rfho.outer import snapshot
def in_place(path, *parts):
    path.write_bytes(b"".join(bytes(part) for part in parts))
snapshot.write_file = in_place
"""
NO_COMMIT = """
from rfho.outer import snapshot
snapshot._committed = snapshot._numbers
"""
NO_CHECKSUM = """
import hashlib
from rfho.outer import leaves
class Same(str):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = str.__hash__
true = leaves._sha256
leaves._sha256 = lambda array: Same(true(array))
"""
NO_FINITE_TEST = """
from rfho.outer import watched
watched._failure = lambda *given: None
"""

POWER = "test_snapshot.py::TestDisk::test_after_a_power_failure_one_of_the_two_is_there"
UNFINISHED = "test_snapshot.py::TestSavedAndLoaded::test_what_was_never_finished_does_not_exist_and_is_removed"
BITS = "test_snapshot.py::TestDamage::test_every_single_bit_of_a_small_one_is_looked_at"
FINITE = "test_runs.py::TestFailure::test_numbers_that_are_not_finite"

LEFT_OUT = {
    "fsync": (NO_FSYNC, POWER),
    "rename": (NO_RENAME, POWER),
    "commit": (NO_COMMIT, UNFINISHED),
    "checksum": (NO_CHECKSUM, BITS),
    "finite test": (NO_FINITE_TEST, FINITE),
}


@pytest.mark.soak
@pytest.mark.parametrize("part", LEFT_OUT)
def test_it_is_missed(part, tmp_path):
    patch, test = LEFT_OUT[part]
    plugin = f"def pytest_collection_finish(session):\n    exec({patch!r}, {{}})\n"
    (tmp_path / "left_out.py").write_text(plugin)
    options = ["-q", "-p", "left_out", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS / test)]
    paths = [str(tmp_path), str(TESTS), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stdout  # 1: tests were run, and failed
    assert "1 failed" in done.stdout
