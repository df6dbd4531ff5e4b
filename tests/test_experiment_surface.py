"""The response surface, in miniature."""

import io

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.response_surface import RESPONSE_SURFACE, SurfaceSettings
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder


@pytest.fixture(scope="module")
def surface(tmp_path_factory):
    settings = SurfaceSettings(
        train=20, valid=20, hidden=3, horizon=4, grid=4, steps=3, online=6, every=2, rounds=3
    )
    folder = create_run_folder("surface", tmp_path_factory.mktemp("surface") / "run")
    execute(RESPONSE_SURFACE, settings, folder, command="", console=Console(file=io.StringIO()))
    return folder


def test_forward_and_reverse_take_the_same_path(surface):
    reverse, forward = (surface.arrays(f"{name}-ho-1") for name in ("reverse", "forward"))
    np.testing.assert_allclose(reverse["points"], forward["points"], rtol=1e-4)
    assert reverse["points"].shape == (4, 2)
    assert not np.array_equal(reverse["points"][0], reverse["points"][-1])


def test_all_methods_begin_at_the_same_start(surface):
    names = ("reverse-ho-2", "forward-ho-2", "rtho-2", "random-search-2")
    firsts = [surface.arrays(name)["points"][0] for name in names]
    np.testing.assert_allclose(firsts, [firsts[0]] * 4, rtol=1e-6)


def test_random_search_has_the_budget_of_reverse_mode(surface):
    rows = {row[0]: row[-1] for row in surface.table("results").rows}
    assert rows["random search"] == rows["Reverse-HO"] == 12
    assert len(surface.arrays("random-search-1")["points"]) == 12


def test_prices_are_measured_beside_the_budget(surface):
    measured = {row[0]: row[-2] for row in surface.table("results").rows}
    assert measured["random search"] == 12
    assert measured["Reverse-HO"] > 3  # outer steps: each costs more than plain training
    assert measured["RTHO"] > 1


def test_a_path_is_on_the_surface(surface):
    path = surface.arrays("random-search-1")
    assert np.isfinite(surface.arrays("surface")["loss"]).all()
    assert path["values"][0] == pytest.approx(surface.arrays("reverse-ho-1")["values"][0])
