"""Hyperparameters that change nothing: found in the program before anything runs, or by an exact zero."""

import jax

from rfho._programs import trees as tree
from rfho.checks.diagnosis.base import Finding, Kind, Severity, Where
from rfho.memory.shards import on_device
from rfho.problem.moment import AbstractMoment
from rfho.problem.validate import without_effect
from rfho.typing import Hyper


def effect_findings(problem: AbstractMoment, hyper: Hyper) -> list[Finding]:
    """One finding per leaf on which neither s_0, nor a step, nor the objective depends."""
    message = (
        "{} reaches neither the initial state, nor a step, nor the objective, so its hypergradient is zero for "
        "ever: use it, look for a stop_gradient, a rounding or a cast to int on its way, or mark it rfho.Fixed()"
    )
    return [
        Finding(Kind.NO_EFFECT, Where(leaf=path), message.format(path), Severity.ERROR)
        for path in without_effect(problem, hyper)
    ]


def zero_findings(hypergradient: Hyper, idle: list[Finding]) -> list[Finding]:
    """One note per leaf whose hypergradient is exactly zero although the program uses it."""
    known = {finding.where.leaf for finding in idle}
    message = (
        "the hypergradient of {} is exactly zero here: a clip or a relu stands on its flat side, a window ends "
        "before the step that uses it, or all that it multiplies is zero. Start from another value, or mark it "
        "rfho.Fixed()"
    )
    return [
        Finding(Kind.ZERO_GRADIENT, Where(leaf=path), message.format(path), Severity.NOTE)
        for path in zero_leaves(hypergradient)
        if path not in known
    ]


def zero_leaves(hypergradient: Hyper) -> list[str]:
    """Paths of the leaves that are exactly zero."""
    return [
        tree.path_of(path, "hyper")
        for path, leaf in jax.tree_util.tree_leaves_with_path(on_device(hypergradient))
        if not leaf.any()
    ]
