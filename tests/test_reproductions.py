"""The table of reproductions: every paper has its command, and every command runs."""

import importlib
import os
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import rfho
from benchmarks.reproduce import __main__ as reproduce
from benchmarks.reproduce import grazzi

PAGE = Path(__file__).parent.parent / "docs/explanation/reproductions.md"


def test_the_page_has_the_command_of_every_paper():
    named = re.findall(r"`python -m benchmarks\.reproduce (\w+)`", PAGE.read_text())
    assert sorted(set(named)) == sorted(reproduce.NAMES)


def test_every_paper_is_one_file_that_names_it():
    for name in reproduce.NAMES:
        module = importlib.import_module(f"benchmarks.reproduce.{name}")
        assert re.search(r"\d{4}\.\d{5}", module.PAPER)
        assert callable(module.run)


def test_an_unknown_paper_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["maclaurin"])
    assert "unknown paper 'maclaurin'" in capsys.readouterr().err


def test_the_ridge_problem_has_the_hypergradient_that_it_is_compared_with():
    of, exact, _, _ = grazzi.ridge()
    method = rfho.ImplicitHyperGradient(rfho.solvers.CG(max_products=20), audit=None)
    found = rfho.hyper_gradient(of(300), jnp.full(20, 0.1), method).hypergradient
    np.testing.assert_allclose(found, exact, rtol=1e-4)


@pytest.mark.soak
@pytest.mark.skipif("RFHO_DATA" not in os.environ, reason="needs the data sets")
@pytest.mark.parametrize("name", reproduce.NAMES)
def test_every_command_runs_in_its_smallest_setting(name, capsys):
    reproduce.main([name, "--small"])
    assert f"{name}: " in capsys.readouterr().out
