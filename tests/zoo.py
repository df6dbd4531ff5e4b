"""One of every method, and what it asks of a problem: the table by which tests go through all of them."""

from typing import Any, NamedTuple

import rfho


class Kind(NamedTuple):
    """A method, and what it asks for."""

    method: Any
    exact: bool = False
    settled: bool = False
    reversible: bool = False


ZOO = {
    "reverse": Kind(rfho.ReverseHyperGradient(), exact=True),
    "reverse, recomputing": Kind(rfho.ReverseHyperGradient(rfho.Recompute(2)), exact=True),
    "reverse, binomial": Kind(rfho.ReverseHyperGradient(rfho.Binomial(2)), exact=True),
    "long reverse": Kind(rfho.LongReverseHyperGradient(2), exact=True),
    "automatic": Kind(rfho.AutoHyperGradient(), exact=True),
    "reversible": Kind(rfho.ReversibleHyperGradient(), reversible=True),
    "forward": Kind(rfho.ForwardHyperGradient(), exact=True),
    "random forward": Kind(rfho.RandomForwardHyperGradient(2, key=0)),
    "real time": Kind(rfho.RealTimeHyperGradient(1)),
    "distilled": Kind(rfho.DistilledHyperGradient(0.5, key=0)),
    "truncated": Kind(rfho.TruncatedHyperGradient(2)),
    "online truncated": Kind(rfho.OnlineTruncatedHyperGradient(1, 1)),
    "warm restart": Kind(rfho.WarmRestartHyperGradient(rfho.ReverseHyperGradient())),
    "warm long reverse": Kind(rfho.WarmRestartHyperGradient(rfho.LongReverseHyperGradient(2))),
    "persistent evolution": Kind(rfho.PersistentEvolutionHyperGradient(2, 0.01, every=1, key=0)),
    "single evolution": Kind(rfho.SingleEvolutionHyperGradient(2, 0.01, every=1, key=0)),
    "implicit": Kind(rfho.ImplicitHyperGradient(refuse_above=None), settled=True),
    "alternating": Kind(rfho.AlternatingHyperGradient(0.4, every=2, products=2), settled=True),
    "T1-T2": Kind(rfho.T1T2HyperGradient(0.4), settled=True),
    "single loop": Kind(rfho.SingleLoopHyperGradient(0.4), settled=True),
    "variance reduced": Kind(rfho.VarianceReducedHyperGradient(0.4), settled=True),
    "one step": Kind(rfho.OneStepHyperGradient(2), settled=True),
    "dynamic barrier": Kind(rfho.DynamicBarrierHyperGradient(0.05, every=2), settled=True),
    "first order": Kind(rfho.FirstOrderHyperGradient(10.0, every=2), settled=True),
}
