"""A study: what is carried out, and how records become rows and curves."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from rfho.outer import TERMINATED
from rfho.runs.experiment import until_interrupted
from rfho.runs.run_folder import create_run_folder
from rfho.runs.study import Study, gained, grouped, median, tabulated, traced
from rfho.runs.table import Spread


@dataclasses.dataclass(frozen=True)
class NoSettings:
    pass


COLUMNS = {"method": None, "accuracy": 1, "gain": 1, "note": None}


def on_seed(seed):
    yield {"method": "b", "accuracy": 10.0 + seed, "note": "as it is"}
    yield {"method": "a", "accuracy": 20.0 + 3 * seed}


@pytest.fixture
def folder(tmp_path):
    folder = create_run_folder("study", tmp_path / "run")
    folder.begin(NoSettings(), experiment="study", title="", summary="", command="")
    return folder


class TestRecords:
    def test_every_method_is_run_on_every_seed(self, folder):
        study = Study({}, range(3), on_seed, COLUMNS)
        records = study.carry_out(folder, Console(file=io.StringIO()))
        assert [(record["case"], record["method"]) for record in records] == [
            (seed, method) for seed in range(3) for method in ("b", "a")
        ]

    def test_ctrl_c_leaves_what_is_known(self, folder):
        def interrupted(seed):
            yield {"method": "a", "accuracy": 1.0}
            raise KeyboardInterrupt

        study = Study({}, range(3), interrupted, COLUMNS)
        assert len(study.carry_out(folder, Console(file=io.StringIO()))) == 1
        assert folder.about().status == "interrupted"

    def test_what_a_case_knew_when_it_was_cut_short_is_told(self, folder):
        told = []

        def interrupted(seed):
            yield {"method": "b", "accuracy": 1.0}
            yield {"method": "a", "accuracy": 2.0}
            if seed == 1:
                raise SystemExit(TERMINATED)

        study = Study({}, range(3), interrupted, COLUMNS)
        quiet = Console(file=io.StringIO())
        study.carry_out(folder, quiet, after_each=lambda records: told.append(len(records)))
        assert told == [2, 4]
        assert folder.about().status == "interrupted"

    def test_a_case_that_was_interrupted_within_is_the_last(self, folder):
        def interrupted(seed):
            with until_interrupted(folder, Console(file=io.StringIO())):
                raise KeyboardInterrupt
            yield {"method": "a", "accuracy": float(seed)}

        records = Study({}, range(3), interrupted, COLUMNS).carry_out(
            folder, Console(file=io.StringIO())
        )
        assert [record["accuracy"] for record in records] == [0.0]

    def test_what_is_known_is_told_after_each_case(self, folder):
        counts = []
        study = Study({}, range(2), on_seed, COLUMNS)
        study.carry_out(
            folder,
            Console(file=io.StringIO()),
            after_each=lambda records: counts.append(len(records)),
        )
        assert counts == [2, 4]

    def test_each_record_is_said_as_soon_as_it_is_known(self, folder):
        said = io.StringIO()
        Study({}, [7], on_seed, COLUMNS).carry_out(folder, Console(file=said))
        assert said.getvalue().splitlines()[0] == "7: method b, accuracy 17.0, note as it is"


class TestTables:
    def records(self):
        return [{"case": seed, **record} for seed in range(2) for record in on_seed(seed)]

    def test_a_method_has_one_row_with_mean_and_deviation(self):
        table = Study({}, range(2), on_seed, COLUMNS).table("t", self.records())
        assert table.rows[0] == ("b", Spread(10.5, 0.5**0.5), None, "as it is")
        assert [column.decimals for column in table.columns] == [None, 1, 1, None]

    def test_rows_are_in_the_order_of_the_methods_and_say_what_they_mean(self):
        table = Study({"a": "the first", "b": ""}, (), on_seed, COLUMNS).table("t", self.records())
        assert [row[0] for row in table.rows] == ["a: the first", "b"]

    def test_a_gain_is_that_on_the_same_seed(self):
        records = gained(self.records(), "accuracy", over="b", as_name="gain")
        gains = {record["method"]: [] for record in records}
        for record in records:
            gains[record["method"]].append(record.get("gain"))
        assert gains == {"b": [None, None], "a": [10.0, 12.0]}

    def test_without_the_seed_to_compare_with_there_is_no_gain(self):
        one = [{"case": 0, "method": "a", "accuracy": 1.0}]
        assert gained(one, "accuracy", over="b", as_name="gain") == one

    def test_numbers_of_an_array_count_one_by_one(self):
        records = [{"method": "a", "loss": np.array([1.0, 2.0])}, {"method": "a", "loss": 6.0}]
        table = tabulated("t", records, {"loss": None}, by="method", of={"loss": median})
        assert table.rows == ((2.0,),)

    def test_records_may_be_rows_as_they_are(self):
        records = [{"n": 3, "x": np.float32(0.5)}, {"n": 4, "x": None}]
        assert tabulated("t", records, {"n": None, "x": None}).rows == ((3, 0.5), (4, None))


class TestCurves:
    rows = ({"run": 1, "loss": 3.0}, {"run": 2, "loss": 5.0}, {"run": 1, "loss": None})

    def test_a_run_that_ended_early_goes_on_as_nan(self):
        np.testing.assert_equal(traced(self.rows, "loss", over="run"), [[3, np.nan], [5, np.nan]])

    def test_without_runs_all_rows_are_one(self):
        np.testing.assert_equal(traced(self.rows[:2], "loss"), [[3, 5]])
        assert traced((), "loss").shape == (1, 0)

    def test_groups_come_in_the_order_of_their_first_record(self):
        assert list(grouped(reversed(self.rows), "run")) == [1, 2]
        assert grouped(self.rows, "run")[1] == [self.rows[0], self.rows[2]]
