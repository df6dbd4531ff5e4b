"""The examples in docstrings run, and print what they say.

They are run as users run them: in float32, with a module's public names behind ``rfho``.
"""

import doctest
import importlib

import jax
import pytest
from library_source import FILES

FINDER = doctest.DocTestFinder(exclude_empty=True)
MODULES = [file.module for file in FILES]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", MODULES)
def test_examples_run_and_print_what_they_say(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    examples = [found for found in FINDER.find(module, name) if found.examples]
    monkeypatch.chdir(tmp_path)
    runner, report = doctest.DocTestRunner(verbose=False), []
    # As users start, in single precision; the conformance kits ask for double.
    with jax.enable_x64(name.startswith("rfho.testing")):
        for example in examples:
            runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples():
    found = [
        example
        for name in ("rfho.outer.loop", "rfho.problem.stream")
        for example in examples_of(name)
    ]
    assert len(found) >= 3


def examples_of(name):
    return [found for found in FINDER.find(importlib.import_module(name)) if found.examples]
