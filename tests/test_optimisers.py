"""The stored table of which derivatives of which optimisers are right is what is measured now."""

import json
import sys
import warnings
from pathlib import Path

import pytest
from optimiser_rows import ROWS
from optimiser_table import CASES, STORED, measured
from sampled import sampled

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "optimisers.md"
REGENERATE = "python tests/optimiser_table.py && python docs/make_optimisers.py"

# These take twice to ten times as long to compile as the others: loops inside loops, chains of chains.
SLOW = {
    *("lbfgs", "lbfgs, no line search", "contrib.muon", "contrib.momo_adam", "contrib.mechanize"),
    *("contrib.galore", "contrib.dadapt_adamw", "contrib.prodigy"),
}

TABLE = json.loads(STORED.read_text(encoding="utf-8"))["optimisers"]

each_row = pytest.mark.parametrize("name", ROWS)


@pytest.mark.parametrize("name", sampled(ROWS, every=5, never=SLOW))
def test_the_table_is_what_is_measured(name):
    with warnings.catch_warnings():
        # What Optax has to say of its own future does not concern the derivatives.
        warnings.simplefilter("ignore")
        found = measured(ROWS[name])
    assert found == TABLE.get(name), (
        f"the derivatives of {name} are no longer those of the table:\n{changes(TABLE, name, found)}\n"
        f"If Optax or JAX changed them, run `{REGENERATE}` and look at what becomes of the page."
    )


def test_the_table_has_no_row_too_many():
    assert set(TABLE) == set(ROWS), f"run `{REGENERATE}`"


def test_every_cell_has_been_decided():
    undecided = {path[:2] for path, verdict in cells() if verdict == "undecided"}
    # Where nothing has a gradient these two take steps at which rounding decides.
    known = {("adafactor", "zero"), ("contrib.prodigy", "zero")}
    assert undecided <= known, "choose settings at which finite differences can decide"


def test_whatever_is_healthy_and_finite_is_right_in_reverse_mode_but_for_known_exceptions():
    wrong = {
        (name, setting)
        for (name, case, mode, setting), verdict in cells()
        if (case, mode) == ("healthy", "reverse") and verdict == "wrong"
    }
    # L-BFGS stops gradients in the scale of its first step.
    assert wrong == {("lbfgs, no line search", "initial weights")}


def test_no_derivative_is_nan_unless_nothing_at_all_has_a_gradient():
    """Whatever Optax divides by: `Descent` sees to the roots and quotients of every optimiser."""
    bad = {(name, case) for (name, case, _, _), verdict in cells() if verdict == "nan"}
    known = {"contrib.dadapt_adamw", "contrib.galore", "contrib.prodigy", "contrib.sam"}
    assert bad <= {(name, "zero") for name in known}


def test_the_page_says_what_the_table_says():
    sys.path.insert(0, str(ROOT / "docs"))
    from make_optimisers import page

    assert PAGE.read_text(encoding="utf-8") == page(STORED), (
        f"docs/reference/optimisers.md is not made from the table: run `{REGENERATE}`"
    )


def cells():
    """Every (optimiser, case, mode, setting) of the table with its verdict."""
    for name, rows in TABLE.items():
        for case in CASES:
            for mode, settings in rows.get(case, {}).items():
                for setting, verdict in settings.items():
                    yield (name, case, mode, setting), verdict


def changes(table, name, found):
    """The verdicts that differ, one line each."""
    lines = []
    for case, modes in found.items():
        for mode, settings in modes.items():
            before = table.get(name, {}).get(case, {}).get(mode, {})
            lines += [
                f"  {case}, {mode}, {setting}: {before.get(setting)} -> {verdict}"
                for setting, verdict in settings.items()
                if before.get(setting) != verdict
            ]
    return "\n".join(lines)
