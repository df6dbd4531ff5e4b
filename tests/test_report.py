"""Run folders, tables, pictures and the report that is made of them."""

import base64
import html.parser
import io
import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fake_experiment import FAKE, FakeSettings
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from rfho.errors import DataFormatError
from rfho.runs import pictures
from rfho.runs.experiment import execute
from rfho.runs.owner import RunFolderError
from rfho.runs.report import render, to_html, write_report
from rfho.runs.run_folder import (
    RunFolder,
    create_run_folder,
    open_run_folder,
)
from rfho.runs.table import (
    Column,
    Spread,
    from_json,
    make_table,
    shown,
    to_json,
    to_markdown,
    to_rich,
)


@pytest.fixture
def folder(tmp_path):
    """A fresh folder of a run that has begun."""
    made = create_run_folder("fake", tmp_path / "run")
    described = {"experiment": "fake", "title": "Title", "summary": "Summary.", "command": "rfho"}
    made.begin(FakeSettings(), **described)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of the fake experiment."""
    made = create_run_folder("fake", tmp_path_factory.mktemp("runs") / "run")
    quiet = Console(quiet=True)
    execute(
        FAKE, FakeSettings(steps=200), made, command="rfho run fake --set a='<b>'", console=quiet
    )
    return made


class Page(html.parser.HTMLParser):
    """The elements of a page, and whether each is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


class TestRunFolder:
    def test_a_name_and_the_time_by_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        first, second = create_run_folder("fake"), create_run_folder("fake")
        assert first != second
        assert re.fullmatch(r"runs/fake-\d{8}-\d{6}", first.path.as_posix())
        assert second.path.is_dir()

    def test_a_folder_with_something_in_it_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(RunFolderError, match="is not empty: choose another with --out"):
            create_run_folder("fake", tmp_path)

    def test_an_empty_folder_is_fine(self, tmp_path):
        assert create_run_folder("fake", tmp_path).path == tmp_path

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(RunFolderError, match=r"cannot make the folder .* choose another"):
            create_run_folder("fake", tmp_path / "file")

    def test_history_is_on_disk_after_each_step(self, folder):
        for step in range(3):
            folder.record({"step": step, "value": 0.5})
            lines = (folder.path / "history.jsonl").read_text().splitlines()
            assert len(lines) == step + 1
        assert folder.history()[2] == {"step": 2, "value": 0.5}

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (jnp.float32(0.5), 0.5),
            (jnp.asarray(3), 3),
            (np.float64(0.1), 0.1),
            (np.int64(2), 2),
            (np.bool_(True), True),
            (np.array([]).size, 0),
            (math.nan, None),
            (-math.inf, None),
            (jnp.asarray(jnp.inf), None),
            (None, None),
            ("text", "text"),
            (True, True),
        ],
    )
    def test_numbers_are_stored_as_json_holds_them(self, folder, value, stored):
        folder.record({"x": value})
        read = folder.history()[0]["x"]
        assert read == stored
        assert type(read) is type(stored)

    @pytest.mark.parametrize("value", [np.zeros(2), [1, 2], {"a": 1}, 1j])
    def test_what_is_no_number_is_refused(self, folder, value):
        with pytest.raises(TypeError, match="history value 'x'"):
            folder.record({"x": value})

    def test_half_a_last_line_is_left_out(self, folder):
        folder.record({"step": 0})
        with (folder.path / "history.jsonl").open("a") as stream:
            stream.write('{"step": ')
        assert folder.history() == [{"step": 0}]

    def test_a_damaged_history_is_named(self, folder):
        (folder.path / "history.jsonl").write_text('{"step": 0}\n{"step"\n')
        with pytest.raises(
            DataFormatError, match=r"history\.jsonl cannot be read .*line|Expecting"
        ):
            render(folder)

    def test_tables_are_kept_as_markdown_too(self, folder):
        table = make_table("Title", [Column("a")], [[1]])
        folder.add_table("some", table)
        assert folder.table("some") == table
        assert (folder.path / "tables" / "some.md").read_text() == to_markdown(table)

    def test_arrays_are_read_back(self, folder):
        arrays = {"x": np.arange(3), "λ": np.eye(2, dtype=np.float32)}
        folder.add_arrays("some", arrays, "Some:")
        read = folder.arrays("some")
        assert read.keys() == arrays.keys()
        np.testing.assert_array_equal(read["λ"], arrays["λ"])

    def test_nothing_is_pickled(self, folder):
        with pytest.raises(ValueError, match="'x' holds objects, which only pickle could save"):
            folder.add_arrays("some", {"x": np.array([{}], dtype=object)}, "Some:")

    def test_a_picture_of_the_same_name_is_replaced_in_its_place(self, folder):
        for caption in ("first", "second"):
            folder.add_picture("a", Figure(), caption)
            folder.add_picture("b", Figure(), "other")
        assert [(item.name, item.caption) for item in folder.contents()] == [
            ("a", "second"),
            ("b", "other"),
        ]

    @pytest.mark.parametrize("name", ["../up", "A", "", "a b", "a/b", "-a"])
    def test_names_are_names_of_files(self, folder, name):
        with pytest.raises(ValueError, match="lower-case letters"):
            folder.add_picture(name, Figure(), "")

    def test_a_folder_without_a_run_is_refused(self, tmp_path):
        with pytest.raises(RunFolderError, match=r"no run\.json in it"):
            open_run_folder(tmp_path)

    def test_a_damaged_run_is_refused(self, folder):
        (folder.path / "run.json").write_text("{}")
        with pytest.raises(DataFormatError, match=r"run\.json is not as expected: it is an object"):
            open_run_folder(folder.path)

    def test_only_a_run_that_has_done_nothing_is_discarded(self, folder):
        folder.record({"step": 0})
        assert not folder.discard()
        (folder.path / "history.jsonl").unlink()
        assert folder.discard()
        assert not folder.path.exists()


class TestReport:
    def test_it_is_one_file_that_loads_nothing(self, finished):
        page = Page((finished.path / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert not {"script", "link", "iframe"} & {tag for tag, _ in page.elements}
        sources = [
            value
            for _, attributes in page.elements
            for name, value in attributes.items()
            if name in ("src", "href", "srcset")
        ]
        assert len(sources) == 1
        assert sources[0].startswith("data:image/png;base64,")
        png = (finished.path / "pictures" / "value.png").read_bytes()
        assert base64.b64decode(sources[0].partition(",")[2]) == png
        assert "url(" not in page.text
        assert "@import" not in page.text

    @pytest.mark.parametrize(
        "text",
        [
            "A fake experiment",
            "The exponential function falls.",
            "finished",
            "rfho run fake --set a='<b>'",
            "The objective <E> at each outer step.",
            "90.46 ± 0.21",
            "Of 3 runs.",
            "steps = 200",
            "# outer step size",
            "values (200,) float64",
            "50 of 200 steps are shown.",
            "python",
            "jax",
        ],
    )
    def test_it_tells_the_run(self, finished, text):
        assert text in Page(render(finished)).text

    def test_it_can_be_made_again_from_the_folder_alone(self, finished, tmp_path):
        original = (finished.path / "report.html").read_bytes()
        moved = RunFolder(tmp_path / "moved")
        for path in finished.path.rglob("*"):
            if path.is_file() and path.name != "report.html":
                target = moved.path / path.relative_to(finished.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        assert write_report(moved).read_bytes() == original

    def test_it_prints_nothing(self, finished, capfd):
        write_report(finished)
        assert capfd.readouterr() == ("", "")

    def test_the_last_step_is_always_shown(self, folder):
        for step in range(121):
            folder.record({"step": step, "value": 1000 + step})
        text = Page(render(folder)).text
        assert "1120" in text
        assert "41 of 121 steps" in text

    def test_what_has_gone_missing_is_a_note(self, folder):
        folder.add_picture("gone", Figure(), "Gone.")
        (folder.path / "pictures" / "gone.png").unlink()
        assert "The picture 'gone' cannot be read" in Page(render(folder)).text

    def test_a_run_that_goes_on_is_told_as_one(self, folder):
        folder.record({"step": 0})
        assert "running" in Page(render(folder)).text

    def test_a_run_without_a_living_owner_was_killed(self, folder):
        folder.record({"step": 0})
        folder.release()
        assert folder.about().status == "killed"
        assert "killed" in Page(render(folder)).text

    @pytest.mark.parametrize(
        ("seconds", "text"), [(12.34, "12.3 s"), (245, "4 min 5 s"), (7380, "2 h 3 min")]
    )
    def test_durations_are_said_as_people_say_them(self, folder, seconds, text):
        content = json.loads((folder.path / "run.json").read_text())
        (folder.path / "run.json").write_text(json.dumps(content | {"seconds": seconds}))
        assert f"after {text}" in Page(render(folder)).text


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.builds(Spread, st.floats(-10, 10), st.floats(0, 1)),
)
rows_of_two = st.lists(st.tuples(cells, cells), max_size=5)


def table_of(rows):
    return make_table("Title", [Column("a"), Column("b", 2)], rows, note="Note.")


class TestTable:
    @given(rows_of_two)
    def test_json_keeps_everything(self, rows):
        table = table_of(rows)
        assert from_json(to_json(table), Path("table.json")) == table

    @given(rows_of_two)
    def test_every_form_has_every_row(self, rows):
        table = table_of(rows)
        assert len(to_rich(table).rows) == len(table.rows)
        assert to_html(table).count("<tr>") == len(table.rows) + 1
        lines = to_markdown(table).splitlines()
        assert len([line for line in lines if line.startswith("|")]) == len(table.rows) + 2

    def test_numbers_that_are_not_finite_are_a_dash(self):
        table = make_table("", [Column("x")], [[math.nan], [math.inf], [None]])
        assert "NaN" not in to_json(table)
        assert to_markdown(table).count("| – |") == 3

    @pytest.mark.parametrize(
        ("cell", "decimals", "text"),
        [
            (0.123456, None, "0.1235"),
            (0.123456, 2, "0.12"),
            (3, 2, "3"),
            (True, None, "yes"),
            (Spread(1, math.nan), 1, "1 ± –"),
        ],
    )
    def test_cells_are_shown_with_their_decimals(self, cell, decimals, text):
        assert shown(cell, decimals) == text

    def test_markup_is_shown_and_not_obeyed(self):
        table = make_table("<t>", [Column("[b]x[/b]")], [["<script>|[red]"]])
        assert "<script>" not in to_html(table)
        assert r"<script>\|[red]" in to_markdown(table)
        stream = io.StringIO()
        Console(width=60, file=stream).print(to_rich(table))
        assert "[red]" in stream.getvalue()

    def test_a_row_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="row 1 of the table 't' has 1 cells for 2 columns"):
            make_table("t", [Column("a"), Column("b")], [(1, 2), (1,)])

    @pytest.mark.parametrize("text", ["{}", "[", "3", '{"title": "t", "columns": [1]}'])
    def test_what_is_no_table_is_refused(self, text):
        with pytest.raises(ValueError):
            from_json(text, Path("table.json"))


class TestPictures:
    def test_pictures_are_large_enough_and_the_same_every_time(self, tmp_path):
        for name in ("a.png", "b.png"):
            drawn = pictures.curves({"x": np.arange(4.0)}, x_label="step", y_label="value")
            (tmp_path / name).write_bytes(pictures.to_png(drawn))
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        with Image.open(tmp_path / "a.png") as image:
            assert image.size == (960, 600)

    def test_curves_show_the_mean_of_the_runs_that_are_finite(self):
        runs = np.array([[1.0, 2.0, np.nan], [3.0, np.inf, np.nan]])
        axis = pictures.curves({"x": runs}, x_label="step", y_label="value").axes[0]
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), [2.0, 2.0, np.nan])
        band = axis.collections[0].get_paths()[0].vertices
        assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 3.0)

    def test_curves_of_two_names_have_a_legend_and_differ_in_more_than_colour(self):
        series = {"reverse": np.arange(3.0), "forward": np.arange(3.0)}
        axis = pictures.curves(series, x_label="step", y_label="value", y_scale="log").axes[0]
        assert [text.get_text() for text in axis.get_legend().get_texts()] == list(series)
        first, second = axis.lines
        assert first.get_linestyle() != second.get_linestyle()
        assert first.get_color() != second.get_color()

    @pytest.mark.parametrize(("matrix", "limits"), [(np.array([[1.0, 4.0]]), (0, 4)), (0, (0, 1))])
    def test_the_scale_of_a_heat_map_starts_at_zero(self, matrix, limits):
        matrix = np.broadcast_to(matrix, (1, 2))
        drawn = pictures.heat_map(matrix, ["row"], ["left", "right"], label="C")
        assert drawn.axes[0].images[0].get_clim() == limits
        labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
        assert labels == ["left", "right"]

    def test_names_must_fit_the_matrix(self):
        with pytest.raises(ValueError, match=r"\(2, 2\) for 1 row names"):
            pictures.heat_map(np.eye(2), ["a"], ["a", "b"])

    def test_histograms_share_their_bins(self):
        groups = {"clean": np.ones(5), "noisy": np.zeros(3)}
        axis = pictures.histograms(groups, x_label="λ", y_label="examples").axes[0]
        data = [patch.get_data() for patch in axis.patches]
        assert [values.sum() for values, *_ in data] == [5, 5, 3, 3]
        np.testing.assert_array_equal(data[0].edges, data[3].edges)

    def test_a_grid_has_an_image_and_a_caption_each(self):
        drawn = pictures.image_grid(np.zeros((5, 8, 8)), list("abcde"), columns=3)
        shown_axes = [axis for axis in drawn.axes if axis.images]
        assert [axis.get_title() for axis in shown_axes] == list("abcde")
        assert pictures.to_png(drawn).startswith(b"\x89PNG")

    @pytest.mark.parametrize(("count", "captions"), [(0, []), (2, ["a"])])
    def test_a_grid_needs_images_and_as_many_captions(self, count, captions):
        with pytest.raises(ValueError, match="captions for"):
            pictures.image_grid(np.zeros((count, 8, 8)), captions)
