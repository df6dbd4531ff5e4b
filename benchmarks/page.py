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

What a hypergradient costs beside plain training of the same problem in the same process. *Ratio* is CPU
time by that of plain training, the median of interleaved rounds; *memory* is what the compiled program
needs beyond plain training: its temporaries and the tape that `tune` reserves once. The least ratio is
found by counting operations: with activations kept, with states kept, or with tangents pushed forward;
the last column is the measured one by that. `grad over scan` is `jax.grad` over a hand-written
`lax.scan`. The command is

```console
$ python -m benchmarks
```
"""

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
    limit = result.get("limits")
    if limit:
        kept, states = limit["activations_kept"], limit["states_kept"]
        lines.append(
            f"Least ratio: {kept:.2f} with activations kept, {states:.2f} with states kept."
        )
    lines += [
        "",
        "| | seconds | ratio | memory, MB | compiled in, s | ratio ÷ least |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        of = f", {row['hyperparameters']} hyperparameters" if several else ""
        lines.append(
            f"| {row['name']}{of} | {row['seconds']:.3f} | {row['ratio']:.2f} | {row['megabytes']:.1f} "
            f"| {row['compile_seconds']:.1f} | {_by_limit(row, limit)} |"
        )
    return "\n".join([*lines, ""])


def _by_limit(row: dict[str, Any], limit: dict[str, float] | None) -> str:
    """The ratio by the least one, for methods whose least one is counted."""
    name = row["name"]
    if limit is None or name.startswith(("plain", "Truncated", "RandomForward")):
        return ""
    if "directions" in name:
        product = limit["activations_kept"] - 1
        return f"{row['ratio'] / (1 + row['hyperparameters'] * product):.2f}"
    again = "STATES" in name or name.startswith(("Recompute", "Binomial"))
    return f"{row['ratio'] / limit['states_kept' if again else 'activations_kept']:.2f}"


def _long(result: dict[str, Any]) -> str:
    lines = [
        "## Long horizons: segments driven from Python",
        "",
        (
            f"{result['device']}; `python -m benchmarks long`. *Memory* is the growth of the process's peak "
            f"during the run, the shelf included if it is in memory. The small network has {_SMALL} "
            "parameters, P2 has 330,000."
        ),
        "",
        "| problem | T | states | seconds | ratio | memory, MB |",
        "|---|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['problem']} | {row['T']} | {row['name']} | {row['seconds']:.1f} | {row['ratio']:.2f} "
        f"| {row['megabytes']:.1f} |"
        for row in result["rows"]
    ]
    return "\n".join([*lines, ""])


def _peers(result: dict[str, Any]) -> str:
    lines = [
        "## The same problems in PyTorch",
        "",
        (
            f"{result['device']}; PyTorch {result['torch']}, `python -m benchmarks peers`. Ratios are to "
            "plain training in PyTorch. *Difference* is the relative difference of the hypergradient, in "
            "float64, from ours. On P3 the Adam of three libraries has no ε under the root, so that they "
            "differ, or have no derivative, where a second moment is small or zero."
        ),
        "",
        "| problem | program | seconds | ratio | difference |",
        "|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        error = f"{row['relative_difference']:.1e}" if "relative_difference" in row else ""
        lines.append(
            f"| {row['problem']} | {row['name']} | {row['seconds']:.3f} | {row['ratio']:.2f} | {error} |"
        )
    return "\n".join([*lines, ""])


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
