"""What a compiled program sends between devices, read from its text: bytes of a turn of its outermost loops.

Of n devices around a ring, each sends (n - 1)/n of what it brings together (an all-gather, an all-to-all), twice
that of what it sums, and all that it passes on. A loop inside counts as often as it turns; one whose turns only
running tells, and each of several branches, counts once.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {"pred": 8, "token": 0, "c64": 64, "c128": 128}
_SHAPE = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_KIND = re.compile(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
    r"|collective-broadcast)(-start)?\("
)
_WHILE = re.compile(r"\bwhile\(.*\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\})")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_AXIS = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")


class _Loop(NamedTuple):
    body: str
    turns: int


class _Computation(NamedTuple):
    """What stands in a computation: bytes that it sends itself, the loops in it, and what it calls."""

    sent: int
    loops: list[_Loop]
    called: list[str]


def sent_in_a_turn(text: str, turns: int) -> int:
    """Bytes that a device sends in one turn of each outermost loop that turns ``turns`` times.

    Args:
        text: a compiled program, as ``as_text()`` gives it.
        turns: by which the loops are known.
    """
    entry, computations = _read(text)

    @functools.cache
    def all_of(name: str) -> int:
        found = computations[name]
        inside = sum(loop.turns * all_of(loop.body) for loop in found.loops)
        return found.sent + inside + sum(map(all_of, found.called))

    def outermost(name: str) -> Iterator[_Loop]:
        yield from computations[name].loops
        for called in computations[name].called:
            yield from outermost(called)

    return sum(all_of(loop.body) for loop in outermost(entry) if loop.turns == turns)


def _read(text: str) -> tuple[str, dict[str, _Computation]]:
    entry, name, found = "", "", {}
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head[2]
            entry = name if head[1] else entry
            found[name] = _Computation(0, [], [])
        elif name:
            found[name] = _with(found[name], line)
    known = found.keys()
    kept = {
        name: one._replace(called=[called for called in one.called if called in known])
        for name, one in found.items()
    }
    return entry, kept


def _with(so_far: _Computation, line: str) -> _Computation:
    """The computation with one more instruction."""
    loop, sent = _WHILE.search(line), _KIND.search(line)
    if loop:
        turns = _TURNS.search(line)
        so_far.loops.append(_Loop(loop[2], int(turns[1]) if turns else 1))
    elif sent:
        return so_far._replace(sent=so_far.sent + _sent(sent, line))
    else:
        branches = [name for found in _BRANCHES.findall(line) for name in found.split(",")]
        so_far.called.extend([*_CALLED.findall(line), *(name.strip(" %") for name in branches)])
    return so_far


def _sent(kind: re.Match[str], line: str) -> int:
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(kind[1])]
    # What is started has its operands beside its results.
    size = max(sizes, default=0) if kind[3] else sum(sizes)
    group = _group(line)
    share = (group - 1) / group
    name = kind[2]
    if name == "all-reduce":
        return round(2 * share * size)
    if name == "reduce-scatter":
        return size * (group - 1)
    if name in ("collective-permute", "collective-broadcast"):
        return size
    return round(share * size)


def _group(line: str) -> int:
    """How many devices talk to each other: 2 where the text does not say, the least that can."""
    mesh, found = _MESH.search(line), _GROUPS.search(line)
    if mesh:
        lengths = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(part or lengths[axis]) for axis, part in _AXIS.findall(mesh[2]))
    if found:
        return int(found[1]) if found[1] else max(1, len(found[2].split(",")))
    return 2


def _bytes(name: str, bits: str, extent: str) -> int:
    each = _BITS.get(name) if name in _BITS else int(bits)
    return (each or 0) * math.prod(int(n) for n in extent.split(",") if n) // 8
