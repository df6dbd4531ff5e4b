"""What programs on several devices are judged by: how far they are from one device, and what they send around."""

import re

import jax
import numpy as np

SIZES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVE = re.compile(
    r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|ragged-all-to-all)"
    r"(?:-start)?\("
)
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def largest_collective(text):
    """Bytes of the largest array that a collective brings to a device."""
    sizes = [
        SIZES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
        for result in COLLECTIVE.findall(text)
        for dtype, shape in SHAPE.findall(result)
    ]
    return max(sizes, default=0)


def whole_rows(text, matrices):
    """Arrays of a device that stack more than one whole matrix: what a tape would be that is not cut."""
    rows = [re.compile(rf"\w+\[(?!1,)\d+,{a},{b}\]") for a, b in matrices]
    return sorted({array for row in rows for array in row.findall(text)})


def error(found, expected):
    """The largest difference of a leaf, relative to its largest number."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in pairs)
