"""The page of results: a table and four pictures from the stored figures."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.suite import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = DOCS / "_static"


def write() -> None:
    """Writes ``docs/explanation/speed.md`` and its pictures from all stored results."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    PICTURES.mkdir(exist_ok=True)
    of_part = {(result["device"], result["part"]): result for result in results if "rows" in result}
    sections = [_INTRODUCTION]
    for (device, part), result in of_part.items():
        if part.startswith("P"):
            sections.append(_section(device, part, result))
    sections += [_peers(result) for (_, part), result in of_part.items() if part == "peers"]
    sections += [_long(result) for (_, part), result in of_part.items() if part == "long"]
    sections += [_programs(result) for (_, part), result in of_part.items() if part == "programs"]
    kept = [result for (_, part), result in of_part.items() if part.startswith("P")]
    problems = [
        result for result in kept if len({row["hyperparameters"] for row in result["rows"]}) == 1
    ]
    _time_against_memory(problems, PICTURES / "speed-time-memory.png")
    sections.append(
        _picture("speed-time-memory.png", "Time against memory, every problem and method")
    )
    for part, picture, column, label in _GROWTHS:
        found = [result for (_, name), result in of_part.items() if name == part]
        if found:
            _growth(found[0]["rows"], PICTURES / picture, column, label)
            sections.append(_picture(picture, f"Growth with {label}"))
    (DOCS / "explanation" / "speed.md").write_text("\n".join(sections))


_INTRODUCTION = """# Speed and memory

What a hypergradient costs beside plain training of the same problem in the same process.

- *Ratio* is CPU time by that of plain training, the median of interleaved rounds. In each a program runs twice and
  the second run counts, when its memory is at hand: with the first touch of gigabytes in it, `grad over scan`
  takes half as long again on P2, and nearly twice as long on P4.
- *÷ least* is that ratio by the one that counting operations gives: of a gradient for each step, and a
  product with the Hessian for each step back or each direction pushed forward, from activations that were kept
  or from states alone. Below 1 the operations are not what takes the time.
- *Memory* is what the compiled program needs beyond plain training, by the compiler's account: its temporaries
  and the tape that `tune` reserves once. *Resident* is the same as the system sees it, by the peak resident
  memory of the process; *kept* what the method keeps of the run by count, states and gradients on a tape, or
  tangents.
- *Compiled in*: a program takes time to compile in proportion to its length. That of a hypergradient holds the
  step, and the step back, which is the step's gradient and the derivative of that: about three times plain
  training's, as that of `grad over scan` does.

`grad over scan` is `jax.grad` over a hand-written `lax.scan`. The command is

```console
$ python -m benchmarks
```
"""

_NOTES = {
    "P2": """\
What undoes steps of momentum instead of storing them, `Anchored` in a table of its own, is as fast as `StoreAll` in
a fortieth of the memory. For any optimiser, `Replay` keeps one gradient for each step and few states; with
`Recompute(100, STATES)` half of the steps are taken twice.""",
    "P2-schedules": """\
With m directions forward mode reads and writes m tangents of 2.6 MB at each step. Twelve of them are far larger than
the 2 MB of cache that a core has of its own: this traffic, which counting operations leaves out, is what keeps it
above the least ratio.""",
}

_MORE_PROGRAMS = """\
A long reverse run has a program for each part between which it can be stopped: a start, a first state, a
segment there and back, a read-out, the estimate, the update, an evaluation. The automatic method asks the
compiler for the memory of those among which it chooses. A domain adds no program: that λ lies in it is looked
at in the first one.

What a program takes goes with the number of its kernels, 10 to 20 ms for each: 67 in a step of reverse mode, 340 in
an implicit one with its audit, which has three solves and two looks at a spectrum. With one product in the code of
each solve instead of three there were 314, and the program took as long."""

_SMALL = 66 * 32 + 32 * 10

_GROWTHS = (
    ("horizon", "speed-horizon.png", "T", "the horizon T"),
    ("number", "speed-number.png", "hyperparameters", "the number of hyperparameters m"),
)


def _section(device: str, part: str, result: dict[str, Any]) -> str:
    rows = result["rows"]
    first, several = rows[0], len({row["hyperparameters"] for row in rows}) > 1
    lines = [
        f"## {part}: T = {first['T']}"
        + ("" if several else f", {first['hyperparameters']} hyperparameters"),
        "",
        f"{device}; JAX {result['jax']}.",
    ]
    lines += [
        "",
        "| | seconds | ratio | ÷ least | memory, MB | resident | kept | compiled in, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        of = f", {row['hyperparameters']} hyperparameters" if several else ""
        by_least = f"{row['ratio'] / row['least_ratio']:.2f}" if row["least_ratio"] else ""
        kept = "" if row["kept_megabytes"] is None else f"{row['kept_megabytes']:.1f}"
        lines.append(
            f"| {row['name']}{of} | {row['seconds']:.3f} | {row['ratio']:.2f} | {by_least} "
            f"| {row['megabytes']:.1f} | {row['resident_megabytes']:.1f} | {kept} "
            f"| {row['compile_seconds']:.1f} |"
        )
    note = _NOTES.get(part)
    return "\n".join([*lines, "", *([note, ""] if note else [])])


def _long(result: dict[str, Any]) -> str:
    lines = [
        "## Long horizons: segments driven from Python",
        "",
        (
            f"{result['device']}; `python -m benchmarks long`. *Memory* is the growth of the process's peak "
            f"during the run, the shelf included if it is in memory. The small network has {_SMALL} "
            "parameters, P2 has 330,000. *Predicted* is the ratio over fifty segments and, for each time that "
            "segments are run anew because their starts are not held, one more."
        ),
        "",
        "| problem | T | states | seconds | ratio | predicted | ÷ least | memory, MB |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['problem']} | {row['T']} | {row['name']} | {row['seconds']:.1f} | {row['ratio']:.2f} "
        f"| {row['predicted_ratio']:.2f} | {row['ratio'] / row['least_ratio']:.2f} "
        f"| {row['resident_megabytes']:.1f} |"
        for row in result["rows"]
    ]
    here = result["device"]
    elsewhere = [row for row in result["rows"] if row.get("device", here) != here]
    for row in elsewhere:
        lines += [
            "",
            f"T = {row['T']}: on {row['device']}, with much other work; CPU seconds of both.",
        ]
    return "\n".join([*lines, ""])


def _peers(result: dict[str, Any]) -> str:
    lines = [
        "## The same problems in PyTorch",
        "",
        (
            f"{result['device']}; PyTorch {result['torch']}, `python -m benchmarks peers`. All programs "
            "take turns, rfho's in a process of its own. Ratios are to plain training in the same framework. "
            "*Difference* is the relative difference of the hypergradient, in "
            "float64, from ours. On P3 the Adam of three libraries has no ε under the root, so that they "
            "differ, or have no derivative, where a second moment is small or zero."
        ),
        "",
        "| problem | program | seconds | ratio | difference |",
        "|---|---|---:|---:|---:|",
    ]
    # The sort is stable: within a problem, rows stay in their order.
    for row in sorted(result["rows"], key=lambda row: row["problem"]):
        error = f"{row['relative_difference']:.1e}" if "relative_difference" in row else ""
        lines.append(
            f"| {row['problem']} | {row['name']} | {row['seconds']:.3f} | {row['ratio']:.2f} | {error} |"
        )
    return "\n".join([*lines, ""])


def _programs(result: dict[str, Any]) -> str:
    lines = [
        "## What a first run compiles",
        "",
        (
            f"{result['device']}; JAX {result['jax']}; `python -m benchmarks.programs`. Softmax with 320 "
            "features and 80 penalties, T = 200: the first two outer steps in a process of its own. *CPU s*, of "
            "tracing, lowering and compiling, are what the first call takes beyond a second, the least of two "
            "or more, on a core that other programs used too. The three programs are what a run begins with, "
            "an outer step, and what it ends with."
        ),
        "",
        "| | programs | CPU s | programs of the second call |",
        "|---|---:|---:|---:|",
    ]
    lines += [row_of_programs(row) for row in result["rows"]]
    return "\n".join([*lines, "", _MORE_PROGRAMS, ""])


def row_of_programs(row: dict[str, Any]) -> str:
    """A line of that table."""
    return f"| {row['name']} | {len(row['names'])} | {row['seconds']:.2f} | {len(row['again'])} |"


def _picture(name: str, caption: str) -> str:
    return f"![{caption}](../_static/{name})\n\n*{caption}.*\n"


def _time_against_memory(results: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    markers = "osD^v<>"
    for result, marker in zip(results, markers, strict=False):
        rows = [row for row in result["rows"] if not row["name"].startswith("plain")]
        ours = [row for row in rows if row["name"] != "grad over scan"]
        theirs = [row for row in rows if row["name"] == "grad over scan"]
        points = axes.scatter(
            [max(row["megabytes"], 0.1) for row in ours],
            [row["ratio"] for row in ours],
            marker=marker,
            label=f"{result['part']}, rfho",
        )
        if theirs:
            axes.scatter(
                [max(row["megabytes"], 0.1) for row in theirs],
                [row["ratio"] for row in theirs],
                marker=marker,
                s=90,
                facecolors="none",
                edgecolors=points.get_facecolor(),
                label=f"{result['part']}, grad over scan",
            )
    axes.set(
        xscale="log",
        yscale="log",
        yticks=(1, 2, 3, 4, 6, 8, 10),
        xlabel="memory beyond plain training (MB)",
        ylabel="time by that of plain training",
        title="Below and left is better",
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _growth(rows: list[dict[str, Any]], path: Path, column: str, label: str) -> None:
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name in dict.fromkeys(row["name"] for row in rows):
        if name.startswith("plain"):
            continue
        mine = [row for row in rows if row["name"] == name]
        x = [row[column] for row in mine]
        time.plot(x, [row["ratio"] for row in mine], marker="o", label=name)
        memory.plot(x, [max(row["megabytes"], 1e-3) for row in mine], marker="o", label=name)
    time.set(xscale="log", yscale="log", xlabel=label, ylabel="time by that of plain training")
    memory.set(xscale="log", yscale="log", xlabel=label, ylabel="memory beyond plain training (MB)")
    figure.legend(*time.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    time.yaxis.set_major_formatter("{x:g}")
    time.yaxis.set_minor_formatter("{x:g}" if max(row["ratio"] for row in rows) < 20 else "")
    for axes in (time, memory):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
