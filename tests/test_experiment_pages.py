"""An experiment's page names its command, and its file of full settings is what it says."""

import pytest
from library_source import ROOT

from rfho.experiments import EXPERIMENTS
from rfho.runs.settings import changed, read_toml, to_toml

FILES = sorted((ROOT / "docs" / "experiments").glob("*.toml"))
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each_file
def test_there_is_a_page_with_the_command(path):
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert f"rfho run {path.stem}" in page


@each_file
def test_the_settings_file_is_the_full_setting(path):
    experiment = BY_NAME[path.stem]
    assert changed(experiment.quick, read_toml(path)) == experiment.full, (
        f"rewrite {path.name} with rfho.runs.settings.to_toml"
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_the_full_settings_survive_a_file(experiment, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(experiment.full), encoding="utf-8")
    assert changed(experiment.quick, read_toml(path)) == experiment.full


def test_no_two_experiments_have_one_name():
    assert len(BY_NAME) == len(EXPERIMENTS)
