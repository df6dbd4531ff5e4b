"""Every program on a page runs: those of a page one after the other, as a reader takes them.

Pages say nothing of their own about tests: a block of ``python`` is run, whatever else it is. Those that need a
package that is not installed are skipped by its name; `make test-frameworks` runs them.
"""

import contextlib
import importlib
import io
import os
import re

import jax
import jax.numpy as jnp
import matplotlib as mpl
import optax
import pytest
from library_source import ROOT

import rfho

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts and "generated" not in page.parts]
BLOCK = re.compile(r"^```(?:python|\{code-cell\})[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_PROGRAMS = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]
HEAVY = {"keras", "mlflow", "tensorflow", "torch", "trackio", "wandb"}
"""Packages that only make test-frameworks installs."""

FEWER = re.compile(r"\b((?:steps|n_trials)=)\d+\b")
"""What is long without being of interest to a test."""

LIKE_FLAX = {"linen", "equinox", "haiku", "optuna", "dropout"}

# The tutorials are run whenever the pages are built; in make test one page of Flax stands for its like.
RUN = [page for page in WITH_PROGRAMS if page.parent.name != "tutorials"]
SHORT = [page for page in RUN if page.stem not in LIKE_FLAX]


# Pages about what is done with a problem, which they do not write out again, and its names.
GO_ON_FROM_A_PROBLEM = {
    "docs/explanation/choosing-a-method.md",
    "docs/explanation/implicit.md",
}


def given():
    x, y = jax.random.normal(jax.random.key(0), (40, 3)), jnp.ones(40)
    train, valid = (x[:20], y[:20]), (x[20:], y[20:])

    def objective(w, hyper, batch):
        return jnp.mean((batch[0] @ w - batch[1]) ** 2)

    def loss(w, hyper, batch=train):
        return objective(w, hyper, batch) + hyper["l2"] * jnp.sum(w**2)

    def minimised(hyper):
        return jnp.linalg.solve(
            x[:20].T @ x[:20] / 20 + hyper["l2"] * jnp.eye(3), x[:20].T @ y[:20] / 20
        )

    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(0.1), jnp.zeros(3))
    return {
        "jax": jax,
        "rfho": rfho,
        "loss": loss,
        "rate": lambda hyper: 0.1,
        "w0": jnp.zeros(3),
        "by_lbfgs": minimised,
        "trained_on": lambda rows: minimised({"l2": 0.1})[rows],
        "validation": lambda w: objective(w, None, valid),
        "train": train,
        "valid": valid,
        "objective": objective,
        "dynamics": dynamics,
        "problem": rfho.Problem(dynamics, objective, train, valid, horizon=20),
        "hyper": {"l2": 0.1},
    }


def name(page):
    return page.relative_to(ROOT).as_posix()


def programs(page, whole):
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        code = found[1] if whole else FEWER.sub(r"\g<1>2", found[1])
        yield compile("\n" * line + code, str(page), "exec")


@pytest.fixture(autouse=True)
def as_a_reader(tmp_path, monkeypatch, unchecked):
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "jax"))
    mpl.use("agg")
    with jax.enable_x64(False):
        yield


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", SHORT, ids=name)
def test_programs_of_a_page_run(page):
    run(page, whole=False)


@pytest.mark.soak
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", RUN, ids=name)
def test_programs_of_a_page_run_to_their_end(page):
    run(page, whole=True)


def run(page, whole):
    names = {"__name__": "page"} | (given() if name(page) in GO_ON_FROM_A_PROBLEM else {})
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for program in programs(page, whole):
                exec(program, names)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in HEAVY:
            raise
        pytest.skip(f"{package} is not installed: make test-frameworks installs it")


def test_the_readme_says_what_its_example_prints():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = text.partition("<!-- example -->")[2].partition("<!-- /example -->")[0]
    assert "print(" in example
    assert re.search(r"^```(text|console)\n", example, re.MULTILINE), "say what it prints"


def test_quoted_messages_are_those_of_the_library():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    page = (DOCS / "how-to" / "errors.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^### "(.*)"$', page, re.MULTILINE)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in source] == []


FRAMEWORKS = ["flax", "linen", "equinox", "haiku", "keras", "tensorflow", "pytorch"]
NUMBERS = {11: "eleven", 12: "twelve"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_tuning_changes_few_lines_of_a_plain_script(framework):
    """Of the third program of a page, those that neither its plain training nor its model has."""
    page = (DOCS / "how-to" / f"{framework}.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    plain = {line.strip() for block in blocks[:2] for line in block.splitlines()}
    changed = [line.strip() for line in blocks[2].splitlines() if line.strip() not in plain | {""}]
    assert len(changed) <= 12, changed
    assert f"{NUMBERS[len(changed)]} lines are new" in page


def test_links_between_pages_lead_somewhere():
    link = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
    for page in PAGES:
        for target in link.findall(page.read_text(encoding="utf-8")):
            there = page.parent / target
            assert (
                there.exists()
                or there.with_suffix(".md").exists()
                or target.startswith("generated")
            ), f"{name(page)}: {target}"


def test_the_file_of_a_guide_is_its_programs_in_order(monkeypatch):
    """What `make docs` writes for download; the programs are run as those of the page."""
    monkeypatch.syspath_prepend(DOCS / "_ext")
    recipe = importlib.import_module("recipes").recipe
    guides = [page for page in WITH_PROGRAMS if page.parent.name == "how-to"]
    for page in guides:
        text = page.read_text(encoding="utf-8")
        file = recipe(text, name(page))
        compile(file, name(page), "exec", dont_inherit=True)
        begin = 0
        for program in BLOCK.findall(text):
            begin = file.index(program.rstrip(), begin) + len(program.rstrip())
        comments = "\n".join(line for line in file.splitlines() if line not in text)
        assert len(comments.splitlines()) <= 1, comments
    assert len(guides) > 30
    assert recipe("# Title\n\n```python\nx = 1\n```\n", "page") is None


def test_every_guide_is_in_the_index():
    index = (DOCS / "how-to" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "how-to").glob("*.md"):
        assert page.stem == "index" or re.search(rf"\b{page.stem}\b", index), page.name


def test_every_question_of_newcomers_is_an_entry_of_its_page():
    """By which the search of the site finds it first; `make look` asks it in a browser."""
    source = (DOCS / "ask.py").read_text(encoding="utf-8")
    questions = re.findall(r'^    "(.+)": \{"(.+?)"', source, re.MULTILINE)
    assert len(questions) == 10
    for question, page in questions:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert f"```{{index}} ! single: {question}\n" in text, page
