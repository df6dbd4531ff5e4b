"""Where hypergradients stop being useful, in miniature."""

import io

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.chaos import CHAOS, ChaosSettings, evenly, secants
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    settings = ChaosSettings(train=20, hidden=3, horizon=30, points=24, at_once=12, examined=3)
    folder = create_run_folder("chaos", tmp_path_factory.mktemp("chaos") / "run")
    execute(CHAOS, settings, folder, command="", console=Console(file=io.StringIO()))
    return folder


def test_rates_that_are_no_range_are_refused():
    with pytest.raises(SettingsError, match="the first must be below the last"):
        ChaosSettings(rates=(0.1,))


def test_in_calm_water_the_hypergradient_is_the_slope(chaos):
    arrays = chaos.arrays("chaos")
    np.testing.assert_allclose(
        arrays["hypergradient"][1:6], arrays["secant"][1:6], rtol=0.05, atol=1e-3
    )


def test_the_adjoint_grows_where_training_diverges(chaos):
    growth = chaos.arrays("chaos")["growth"]
    assert growth[0] < 100 < growth[-1]


def test_the_diagnosis_finds_nothing_in_calm_water_and_something_beyond(chaos):
    first, *others = chaos.table("diagnosis").rows
    assert (first[0], first[2]) == ("nothing", pytest.approx(0.003))
    assert sum(row[1] for row in [first, *others]) == 3
    assert others[-1][0] != "nothing"
    assert others[-1][3] == pytest.approx(10)


def test_a_slope_is_fitted_to_the_neighbourhood():
    log_rates = np.linspace(0, 1, 11)
    np.testing.assert_allclose(secants(log_rates, 3 * log_rates, span=0.2), 3)


def test_the_rates_that_are_examined_reach_from_the_first_to_the_last():
    assert evenly(24, 3) == [0, 12, 23]
    assert evenly(2, 5) == [0, 1]
    assert evenly(0, 5) == []
