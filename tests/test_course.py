"""The way of a run as text and as a picture."""

import jax.numpy as jnp
import numpy as np
import pytest

from rfho import Result, Solution
from rfho.outer import Report
from rfho.outer.lines import shown


def solution(steps):
    history = tuple(
        Report(
            step,
            {"lr": np.float64(10.0**-step), "net": {"decay": np.arange(8.0) * step}, "name": "sgd"},
            np.float64(1 / step),
            {"lr": np.float64(0.0), "net": {"decay": np.zeros(8)}, "name": None},
            {},
            0.5,
        )
        for step in range(1, steps + 1)
    )
    last = history[-1].hyper if history else {"lr": 1.0}
    return Solution(
        last,
        best=None,
        history=history,
        result=Result.STEPS_DONE,
        conclude=lambda: (jnp.zeros(()), None),
    )


def test_a_table_has_a_column_for_each_learned_hyperparameter():
    lines = solution(2).table().splitlines()
    assert lines[0].split() == ["step", "objective", "lr", "net.decay"]
    assert lines[1].split(maxsplit=3) == ["1", "1", "0.1", "0 to 7 (8)"]
    assert lines[2].split(maxsplit=3) == ["2", "0.5", "0.01", "0 to 14 (8)"]
    assert len(lines) == 3


def test_a_long_table_shows_twenty_steps_with_the_first_and_the_last():
    lines = solution(1000).table().splitlines()[1:]
    assert len(lines) == 20
    assert [line.split()[0] for line in (lines[0], lines[-1])] == ["1", "1000"]


def test_a_picture_has_a_panel_for_the_objective_and_each_hyperparameter():
    objective, rate, decay = solution(4).plot().axes
    assert [axis.get_ylabel() for axis in (objective, rate, decay)] == [
        "objective",
        "lr",
        "net.decay",
    ]
    assert objective.lines[0].get_ydata().tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert rate.get_yscale() == "log"
    assert len(decay.lines) == 5  # quantiles
    assert decay.lines[-1].get_ydata().tolist() == [7, 14, 21, 28]


def test_a_run_without_a_step_says_so():
    assert solution(0).table() == "no outer steps"
    with pytest.raises(ValueError, match="has no outer step"):
        solution(0).plot()


def test_places_in_a_tree_are_shown_with_dots():
    assert shown({"net": {"decay": 0.5}, "lr": [0.25]}) == "lr.0 = 0.25, net.decay = 0.5"
