"""One HTML page that tells a run: results, pictures, settings, history and how it was made.

The page is made of the run's folder alone, so ``rfho report DIR`` can make it again, byte for
byte. It is self-contained: pictures are embedded, and nothing is loaded from anywhere.
"""

import base64
import html
import string
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfho.runs.about import About
from rfho.runs.run_folder import Item, RunFolder
from rfho.runs.table import Cell, Column, make_table, to_html

_STEPS_SHOWN = 60
"""Longer histories are thinned to about so many rows."""


def write_report(folder: RunFolder) -> Path:
    """Writes ``report.html`` into the folder of a run, and returns its path.

    Raises:
        RunFolderError: the folder holds no run.
    """
    path = folder.path / "report.html"
    path.write_text(render(folder), encoding="utf-8")
    return path


def render(folder: RunFolder) -> str:
    """The page as text.

    Raises:
        RunFolderError: the folder holds no run.
    """
    about = folder.about()
    sections = [
        _section("Results", "".join(_item(folder, item) for item in folder.contents())),
        _section("Settings", _settings(folder)),
        _section("Outer steps", _history(folder.history())),
        _section("How it was made", _made(about)),
    ]
    return _PAGE.substitute(
        title=html.escape(about.title),
        summary=html.escape(about.summary),
        status=_status(about),
        sections="\n".join(filter(None, sections)),
        style=_STYLE,
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _status(about: About) -> str:
    took = "" if about.seconds is None else f" after {_duration(about.seconds)}"
    reason = f": {html.escape(about.reason)}" if about.reason else ""
    badge = f'<strong class="{html.escape(about.status)}">{html.escape(about.status)}</strong>'
    return f"{badge}{took}{reason} · started {html.escape(about.started.replace('T', ' '))}"


def _item(folder: RunFolder, item: Item) -> str:
    """One result; a file that has gone missing leaves a note, not a failure."""
    try:
        match item.kind:
            case "picture":
                return _picture(folder.picture(item.name), item.caption)
            case "table":
                return to_html(folder.table(item.name))
            case _:
                return _arrays(folder.arrays(item.name), item)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        named = html.escape(f"The {item.kind} {item.name!r} cannot be read ({error}).")
        return f'<p class="failed">{named}</p>'


def _picture(png: bytes, caption: str) -> str:
    text, data = html.escape(caption), base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _arrays(arrays: Mapping[str, Any], item: Item) -> str:
    shapes = ", ".join(f"{key} {array.shape} {array.dtype}" for key, array in arrays.items())
    file = f"<code>arrays/{html.escape(item.name)}.npz</code>"
    return f"<p>{html.escape(item.caption)} {file}: {html.escape(shapes)}.</p>"


def _settings(folder: RunFolder) -> str:
    text = folder.settings_text()
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _history(rows: Sequence[Mapping[str, Cell]]) -> str:
    """The outer steps as a table that opens when asked."""
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    shown = _thinned(rows)
    note = "" if len(shown) == len(rows) else f"{len(shown)} of {len(rows)} steps are shown."
    cells = [[row.get(key) for key in keys] for row in shown]
    table = make_table("", [Column(key) for key in keys], cells, note=note)
    return f"<details><summary>{len(rows)} steps</summary>{to_html(table)}</details>"


def _thinned(rows: Sequence[Mapping[str, Cell]]) -> list[Mapping[str, Cell]]:
    """Every k-th row and always the last."""
    stride = -(-len(rows) // _STEPS_SHOWN)
    return [row for number, row in enumerate(rows, 1) if (len(rows) - number) % stride == 0]


def _made(about: About) -> str:
    versions = [(name, version) for name, version in about.versions.items()]
    table = make_table("", [Column("what"), Column("version")], versions)
    return f"<pre>{html.escape(about.command)}</pre>{to_html(table)}"


def _duration(seconds: int | float) -> str:
    """As people say it: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_PAGE = string.Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="summary">$summary</p>
<p class="status">$status</p>
</header>
<main>
$sections
</main>
</body>
</html>
"""
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --quiet: #5c6470; --paper: #fcfcfa;
  --raised: #f1f1ec; --line: #d9d9d2; --good: #00704a; --warn: #a15c00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e0; --quiet: #a2a8b0; --paper: #17181b;
  --raised: #222429; --line: #3a3d44; --good: #5fcf9c; --warn: #f0b35a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 52rem; padding: 3rem 1.25rem 5rem; color: var(--ink);
  background: var(--paper); font: 1.0625rem/1.6 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 1rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
.summary { font-size: 1.15rem; margin: 0 0 .75rem; }
.status, figcaption, caption { color: var(--quiet); font-size: .95rem; }
.finished { color: var(--good); } .interrupted, .running { color: var(--warn); }
.failed { color: var(--bad); }
figure { margin: 1.75rem 0; overflow-x: auto; }
figcaption { margin-top: .5rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px;
  border: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; color: var(--ink); }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line); }
.number { text-align: right; padding-left: .9rem; }
pre { background: var(--raised); border-radius: 6px; padding: .9rem 1rem; overflow-x: auto; }
pre, code { font: .875rem/1.5 ui-monospace, "Cascadia Code", Menlo, Consolas, monospace; }
summary { cursor: pointer; }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""
