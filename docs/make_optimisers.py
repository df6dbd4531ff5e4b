"""Writes docs/reference/optimisers.md from the table that the tests keep.

python docs/make_optimisers.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "optimisers.json"
PAGE = ROOT / "docs" / "reference" / "optimisers.md"

CASES = ("healthy", "dead", "zero", "dead, eps_root", "zero, eps_root")
RIGHT = {"exact", "zero"}

INTRODUCTION = """\
# Optimisers and their derivatives

<!-- Made by docs/make_optimisers.py from tests/optimisers.json. Change these, not this page. -->

`Descent` differentiates through any Optax optimiser; not every optimiser has right derivatives
everywhere. Here each is differentiated by its settings and by the initial weights, in forward and in
reverse mode, over {horizon} steps of a small problem in double precision, and compared with finite
differences that bring their own error bar. Optax {optax}. Three cases:

- **healthy**: no gradient is zero;
- **dead**: one leaf of the parameters has a gradient of exactly zero at every step, as a dead unit or
  a feature that never occurs;
- **zero**: all gradients are exactly zero.

✓ means that every derivative is right. *NaN* means that at least one is; where it says *reverse* or
*forward*, only in that mode. *wrong* is a finite number that finite differences contradict, *undecided*
one of which they cannot tell. A second
table has the verdict of each setting.

Most optimisers divide by the root of a second moment, whose derivative is infinite where a gradient is
exactly zero: Optax's own derivatives are NaN there. `Descent` puts `rfho.optim.safe_roots` around
whatever it is given, and no ``eps_root`` is needed; its updates are those of Optax. In steps that you
write yourself take `rfho.optim`, the same optimisers with the same cure. L-BFGS is wrong because Optax
stops the gradient of the scale of its first step; Sophia asks for more than dynamics give it.

| optimiser | healthy | dead | zero | dead, ``eps_root`` > 0 | zero, ``eps_root`` > 0 |
|---|---|---|---|---|---|
"""

DETAILS = """
## Setting by setting

Settings whose derivative is right are left out, but for those on which the result does not depend
(*no effect*: the derivative is zero, and rightly so): the momenta of optimisers that use nothing but
signs, limits that are not reached, scales that a normalisation cancels.

| optimiser | case | setting | forward | reverse |
|---|---|---|---|---|
"""

ENDING = """
Made by `python tests/optimiser_table.py && python docs/make_optimisers.py`; the test
`tests/test_optimisers.py` fails when a verdict changes.
"""


def page(table: Path = TABLE) -> str:
    """The whole page."""
    stored = json.loads(table.read_text(encoding="utf-8"))
    rows = stored["optimisers"]
    summary = "".join(_summary(name, rows[name]) for name in sorted(rows))
    details = "".join(line for name in sorted(rows) for line in _details(name, rows[name]))
    introduction = INTRODUCTION.format(optax=stored["optax"], horizon=stored["horizon"])
    return introduction + summary + DETAILS + details + ENDING


def _summary(name: str, cases: dict) -> str:
    cells = [_cell(cases[case]) if case in cases else "" for case in CASES]
    return f"| {name} | {' | '.join(cells)} |\n"


def _cell(modes: dict) -> str:
    worst = {mode: _worst(set(settings.values())) for mode, settings in modes.items()}
    if worst["forward"] == worst["reverse"]:
        return worst["forward"]
    return ", ".join(f"{verdict} ({mode})" for mode, verdict in worst.items() if verdict != "✓")


def _worst(verdicts: set[str]) -> str:
    if verdicts <= RIGHT:
        return "✓"
    bad = verdicts - RIGHT
    return ", ".join(sorted("NaN" if verdict == "nan" else verdict for verdict in bad))


def _details(name: str, cases: dict) -> list[str]:
    lines = []
    for case in CASES:
        modes = cases.get(case, {"forward": {}, "reverse": {}})
        grouped: dict[tuple[str, str], list[str]] = {}
        for setting, forward in modes["forward"].items():
            reverse = modes["reverse"][setting]
            idle = case == "healthy" and forward == reverse == "zero"
            if idle or not {forward, reverse} <= RIGHT:
                grouped.setdefault((_word(forward), _word(reverse)), []).append(setting)
        lines += [
            f"| {name} | {case} | {', '.join(settings)} | {forward} | {reverse} |\n"
            for (forward, reverse), settings in grouped.items()
        ]
    return lines


def _word(verdict: str) -> str:
    return {"nan": "NaN", "exact": "right", "zero": "no effect"}.get(verdict, verdict)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
