"""The strongest examples of a query as bars."""

from typing import Any


def of_query(helpful: Any, harmful: Any, *, query: int) -> Any:
    """A figure of two groups of bars, helpful above, harmful below; each bar is an example."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.22 * (len(helpful.examples) + len(harmful.examples)) + 1))
    axes = figure.subplots()
    labels = [str(example) for example in (*helpful.examples, *harmful.examples[::-1])]
    heights = [*helpful.influence, *harmful.influence[::-1]]
    colours = ["C0"] * len(helpful.examples) + ["C3"] * len(harmful.examples)
    axes.barh(range(len(labels)), heights, color=colours)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"influence on query {query}: below 0 it helped")
    axes.set_ylabel("training example")
    figure.tight_layout()
    return figure
