"""Writes whole files and lines without end, and looks whether they are whole; see `killed`."""

import itertools
from pathlib import Path

from rfho.files import append_line, write_file

SIZE = 200_000


def write(folder: Path) -> None:
    for i in itertools.count():
        write_file(folder / "whole", bytes([i % 256]) * SIZE)
        append_line(folder / "lines", f"{i:06d}" * 50)


def check(folder: Path) -> None:
    if (folder / "whole").exists():
        content = (folder / "whole").read_bytes()
        assert content == content[:1] * SIZE
    if (folder / "lines").exists():
        *lines, torn = (folder / "lines").read_text().split("\n")
        assert all(line == line[:6] * 50 for line in lines)
        assert len(torn) <= 300
