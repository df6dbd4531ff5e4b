"""The habits of the house that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from library_source import FILES, PACKAGE, ROOT, calls

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


@each_file
def test_a_symbol_keeps_its_case_at_the_start_of_a_docstring(file):
    text = (PACKAGE / file.path).read_text(encoding="utf-8")
    wrong = [line for line in docstrings(file.tree) if capitalised(line, text)]
    assert not wrong, f"src/rfho/{file.path}: w, g and s are not W, G and S: {wrong}"


@each_file
def test_a_docstring_begins_with_a_capital_unless_it_is_a_symbol(file):
    wrong = [line for line in docstrings(file.tree) if re.match(r"[a-z]{2,}[ ,.:]", line)]
    assert not wrong, f"src/rfho/{file.path}: {wrong}"


@pytest.mark.parametrize(
    ("line", "elsewhere"),
    [
        ("W.", "w"),
        ("G = ∇_w L(w, λ, b).", "g"),
        ("Q with ‖v - M q‖ small.", "M q"),
        ("F at λ.", "f(λ)"),
    ],
)
def test_a_capitalised_symbol_is_recognised(line, elsewhere):
    assert capitalised(line, f"{line}\n{elsewhere}")


@pytest.mark.parametrize(
    ("line", "elsewhere"),
    [
        ("w_t.", "w"),
        ("A step.", ""),
        ("T steps.", ""),
        ("F and its linearisation.", "F(s, λ) = 0"),
        ("Rows.", ""),
        ("T1-T2 of the paper.", ""),
    ],
)
def test_what_is_rightly_capital_is_not(line, elsewhere):
    assert not capitalised(line, f"{line}\n{elsewhere}")


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


def docstrings(module: ast.Module) -> Iterator[str]:
    """The first line of every docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(module):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
            yield docstring.splitlines()[0]


def capitalised(line: str, text: str) -> bool:
    """Whether a line begins with a symbol that is a capital there and nowhere else in its file.

    E, L, T and Z are capitals in the paper; a capital A before a word is an article.
    """
    symbol = re.match(r"([A-Z])(?!\w)(?!-)", line)
    if symbol is None or symbol[1] in "ELTZ" or re.match(r"A [\w`]", line):
        return False
    return not re.search(rf"(?<![\w'])({symbol[1]})(?![\w'])", text.replace(line, ""))


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
