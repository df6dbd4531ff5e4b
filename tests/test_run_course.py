"""The pictures of a run's course: each curve bears the name of the start that it is of."""

from types import SimpleNamespace

import numpy as np

from rfho.outer import Report
from rfho.runs.course import add_course


class Drawn(dict):
    """A folder that keeps nothing but the figures."""

    def add_picture(self, name, drawn, caption):
        self[name] = drawn

    def add_table(self, name, table):
        self[name] = table


def standing(member, steps):
    hyper = {"lr": np.float64(0.5)}
    history = [Report(k, hyper, 1.0, hyper, {}, 0.25, member) for k in range(1, steps + 1)]
    return SimpleNamespace(history=history, best=None)


def test_curves_bear_the_numbers_of_the_starts_also_where_one_has_none():
    folder = Drawn()
    add_course(folder, [standing(0, 2), standing(1, 0), standing(2, 3)], [])
    for picture in ("objective", "hyper-0-lr"):
        labels = [line.get_label() for line in folder[picture].axes[0].lines]
        assert [label.partition(", ")[2] for label in labels] == ["start 0", "start 2"]
    assert [row[0] for row in folder["ends"].rows] == [0, 1, 2]


def test_one_start_needs_no_number():
    folder = Drawn()
    add_course(folder, [standing(0, 2)], ["doubtful"])
    assert folder["objective"].axes[0].lines[0].get_label() == "objective"
    assert folder["findings"].rows == (("doubtful",),)
