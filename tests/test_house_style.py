"""The habits of the house that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from library_source import FILES, ROOT, calls

PRINTERS = ("cli.py", "experiments/", "runs/commands.py")
DRAWERS = {"common", "helper", "helpers", "misc", "util", "utils"}

# Written in pieces, so that this file does not contain what it forbids.
UNFINISHED = re.compile(r"\b(" + "|".join(("TODO", "FIXME", "XXX")) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.)}\]<~/-])/(home|mnt|opt|root|tmp|Users|work)\b")

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)


@each_file
def test_only_clients_print(file):
    lines = [line for name, line in calls(file.tree) if name == "print"]
    assert not lines or file.is_in(*PRINTERS), (
        f"src/rfho/{file.path} prints in lines {lines}: raise, return or report instead"
    )


@each_file
def test_no_import_takes_everything(file):
    lines = [
        node.lineno
        for node in ast.walk(file.tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    assert not lines, f"src/rfho/{file.path} imports * in lines {lines}"


@each_file
def test_every_file_says_what_it_is(file):
    assert ast.get_docstring(file.tree), f"src/rfho/{file.path} has no module docstring"


@each_file
def test_no_file_is_a_drawer_for_odds_and_ends(file):
    drawers = DRAWERS & set(file.module.split("."))
    assert not drawers, f"name src/rfho/{file.path} after the concept that it holds"


def test_nothing_is_left_unfinished():
    found = lines_with(UNFINISHED)
    assert not found, "finish it, or state the limit in the docstring:\n" + "\n".join(found)


def test_no_file_names_a_path_of_one_machine():
    found = lines_with(MACHINE_PATH)
    assert not found, "take it from an argument or the environment:\n" + "\n".join(found)


@pytest.mark.parametrize("text", ['open("/' + 'tmp/x")', "cd /" + "work", "`/" + "home/me`"])
def test_a_machine_path_is_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["and/or", "a/work", "docs/home", "https://docs/tmp", "1 /works"])
def test_what_only_looks_like_a_machine_path_is_not(text):
    assert not MACHINE_PATH.search(text)


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern stands in the project's texts."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line) and path != Path(__file__)
    ]


def texts() -> Iterator[Path]:
    """The text files that belong to the project, without what is built from them."""
    kinds = {".cff", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
    yield from (path for path in ROOT.iterdir() if path.suffix in kinds or path.name == "Makefile")
    yield ROOT / ".ci" / "run"
    for folder in ("src", "tests", "docs", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            built = {"_build", "generated", "__pycache__"} & set(path.relative_to(ROOT).parts)
            if path.suffix in kinds and not built:
                yield path
