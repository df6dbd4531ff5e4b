"""The response surface and the onset of chaos, in miniature."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.base import execute
from rfho.experiments.chaos import CHAOS, ChaosSettings, secants
from rfho.experiments.response_surface import RESPONSE_SURFACE, SurfaceSettings
from rfho.experiments.run_folder import RunFolder, create_run_folder
from rfho.experiments.settings import changed, read_toml, to_toml


def carried_out(experiment, settings, path) -> RunFolder:
    folder = create_run_folder(experiment.name, path / experiment.name)
    console = Console(file=io.StringIO())
    assert execute(experiment, settings, folder, command="", console=console).status == "finished"
    return folder


@pytest.fixture(scope="module")
def surface(tmp_path_factory):
    settings = SurfaceSettings(
        train=20, valid=20, hidden=3, horizon=4, grid=4, steps=3, online=6, every=2
    )
    return carried_out(RESPONSE_SURFACE, settings, tmp_path_factory.mktemp("surface"))


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    settings = ChaosSettings(train=20, hidden=3, horizon=30, points=24, at_once=12, examined=3)
    return carried_out(CHAOS, settings, tmp_path_factory.mktemp("chaos"))


class TestResponseSurface:
    def test_forward_and_reverse_take_the_same_path(self, surface):
        reverse, forward = (surface.arrays(f"{name}-ho-1") for name in ("reverse", "forward"))
        np.testing.assert_allclose(reverse["points"], forward["points"], rtol=1e-4)
        assert reverse["points"].shape == (4, 2)
        assert not np.array_equal(reverse["points"][0], reverse["points"][-1])

    def test_all_methods_begin_at_the_same_start(self, surface):
        names = ("reverse-ho-2", "forward-ho-2", "rtho-2", "random-search-2")
        firsts = [surface.arrays(name)["points"][0] for name in names]
        np.testing.assert_allclose(firsts, [firsts[0]] * 4, rtol=1e-6)

    def test_random_search_has_the_budget_of_reverse_mode(self, surface):
        rows = {row[0]: row[-1] for row in surface.table("results").rows}
        assert rows["random search"] == rows["Reverse-HO"] == 12
        assert len(surface.arrays("random-search-1")["points"]) == 12

    def test_prices_are_measured_beside_the_budget(self, surface):
        measured = {row[0]: row[-2] for row in surface.table("results").rows}
        assert measured["random search"] == 12
        assert measured["Reverse-HO"] > 3  # outer steps: each costs more than plain training
        assert measured["RTHO"] > 1

    def test_a_path_is_on_the_surface(self, surface):
        path = surface.arrays("random-search-1")
        assert np.isfinite(surface.arrays("surface")["loss"]).all()
        assert path["values"][0] == pytest.approx(surface.arrays("reverse-ho-1")["values"][0])


class TestChaos:
    def test_in_calm_water_the_hypergradient_is_the_slope(self, chaos):
        arrays = chaos.arrays("chaos")
        np.testing.assert_allclose(
            arrays["hypergradient"][1:6], arrays["secant"][1:6], rtol=0.05, atol=1e-3
        )

    def test_the_adjoint_grows_where_training_diverges(self, chaos):
        growth = chaos.arrays("chaos")["growth"]
        assert growth[0] < 100 < growth[-1]

    def test_the_diagnosis_finds_nothing_in_calm_water_and_something_beyond(self, chaos):
        first, *others = chaos.table("diagnosis").rows
        assert (first[0], first[2]) == ("nothing", pytest.approx(0.003))
        assert sum(row[1] for row in [first, *others]) == 3
        assert others[-1][0] != "nothing"
        assert others[-1][3] == pytest.approx(10)

    def test_a_slope_is_fitted_to_the_neighbourhood(self):
        log_rates = np.linspace(0, 1, 11)
        np.testing.assert_allclose(secants(log_rates, 3 * log_rates, span=0.2), 3)


@pytest.mark.parametrize("experiment", [RESPONSE_SURFACE, CHAOS], ids=lambda each: each.name)
def test_the_full_settings_survive_their_file(experiment, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(experiment.full), encoding="utf-8")
    assert changed(experiment.quick, read_toml(path)) == experiment.full
    assert dataclasses.is_dataclass(experiment.full)
