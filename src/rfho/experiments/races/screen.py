"""What is seen while the race goes on: who stands where, the way there, and the penalties as a picture."""

from collections.abc import Mapping

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from rfho.experiments.races.contest import Standing

_LEVELS = " ▁▂▃▄▅▆▇█"
_INK = "█▓▒░ "
_WIDTH = 32


def screen(standings: Mapping[str, Standing], budget: float, *, penalties: np.ndarray) -> Group:
    """One screen.

    Args:
        standings: by racer.
        budget: CPU seconds that each may use.
        penalties: log λ of each column, of which a picture is drawn.
    """
    table = RichTable(title=f"Validation loss at equal CPU time, {budget:g} s for each")
    for heading in ("", "objective", "moves", "CPU s", "of which compiling", "the way down"):
        table.add_column(heading, justify="left" if heading in ("", "the way down") else "right")
    start = max(standing.leads[0][1].value for standing in standings.values())
    lowest = min(standing.best.value for standing in standings.values())
    for name, standing in standings.items():
        table.add_row(
            name,
            f"{standing.best.value:.4f}",
            str(standing.moves),
            f"{standing.seconds:.1f}",
            f"{standing.compiling:.1f}",
            way_down(standing, budget, (lowest, start)),
        )
    caption = "Penalties learned by rfho, columns of the table row by row: dark is kept, blank is silenced"
    return Group(table, Text(caption), Text(drawn(penalties)))


def way_down(standing: Standing, budget: float, ends: tuple[float, float]) -> str:
    """The best objective over the budget, as a line of blocks."""
    times, values = standing.way_down
    places = np.linspace(0, budget, _WIDTH)
    known = places[places <= max(standing.seconds, 1e-9)]
    at = values[np.searchsorted(times, known, side="right") - 1]
    lowest, highest = ends
    height = (at - lowest) / max(highest - lowest, 1e-9)
    return "".join(_LEVELS[1 + round(7 * float(np.clip(share, 0, 1)))] for share in height)


def drawn(log_penalties: np.ndarray) -> str:
    """Penalties as shades, in rows of eight; the second half, the noise, stands beside the first."""
    low, high = float(log_penalties.min()), float(log_penalties.max())
    share = (log_penalties - low) / (high - low) if high > low else np.full(len(log_penalties), 0.5)
    ink = [2 * _INK[min(int(5 * each), 4)] for each in share]
    half = (len(ink) + 1) // 2
    wide = 8 if half > 8 else half
    rows = [
        f"{''.join(ink[i : min(i + wide, half)])}   │   {''.join(ink[half + i : half + i + wide])}"
        for i in range(0, half, wide)
    ]
    return "\n".join(rows)


def line(standings: Mapping[str, Standing]) -> str:
    """One line, for those who read a file."""
    parts = (
        f"{name} {each.best.value:.4f} ({each.seconds:.1f} s)" for name, each in standings.items()
    )
    return ", ".join(parts)
