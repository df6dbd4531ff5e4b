"""Ten images that train a model, in miniature."""

import io

import numpy as np
import pytest
from rich.console import Console

from rfho.experiments.distilled_data import DISTILLED_DATA, DistillSettings
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = DistillSettings(valid=100, test=100, horizon=3, steps=6, outer_rate=0.3, draws=3)
    folder = create_run_folder("distilled-data", tmp_path_factory.mktemp("distilled") / "run")
    console = Console(file=io.StringIO())
    execute(DISTILLED_DATA, settings, folder, command="", console=console)
    return folder


def test_the_images_become_better_teachers(folder):
    losses = [row["validation loss"] for row in folder.history()]
    assert losses[0] == pytest.approx(np.log(10), rel=1e-3)
    assert losses[-1] < losses[0] - 0.3


def test_there_is_one_image_for_each_class(folder):
    images = folder.arrays("images")["images"]
    assert images.shape == (10, 8, 8)
    assert np.abs(images).max() > 0.1


def test_learned_images_are_compared_with_real_ones(folder):
    rows = {row[0]: row for row in folder.table("accuracy").rows}
    assert rows["ten real images"][-1] == 3
    assert rows["ten learned images"][1] > 30
    assert rows["all 100 validation images"][1] > 60


def test_a_set_that_is_too_small_is_refused(tmp_path):
    settings = DistillSettings(valid=1700)
    folder = create_run_folder("distilled-data", tmp_path / "run")
    with pytest.raises(SettingsError, match="lower one of them"):
        DISTILLED_DATA.run(settings, folder, Console(file=io.StringIO()))
