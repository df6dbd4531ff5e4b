"""Optax's optimisers, differentiable where Optax's are not: at a second moment of exactly zero.

    optim=lambda hyper: rfho.optim.adam(hyper["lr"], b1=hyper["b1"])

Signatures, states and updates are those of Optax; see `safe_roots` for how, and for any other
optimiser.
"""

from rfho._programs.safe_roots import safe_roots, safe_sqrt
from rfho.optim.aliases import (
    adabelief,
    adafactor,
    adam,
    adamw,
    adan,
    ademamix,
    adopt,
    amsgrad,
    dadapt_adamw,
    dog,
    lamb,
    momo,
    momo_adam,
    muon,
    nadam,
    nadamw,
    novograd,
    optimistic_adam_v2,
    prodigy,
    radam,
    rmsprop,
    schedule_free_adamw,
    simplified_ademamix,
)
from rfho.optim.certain import certain

__all__ = [
    "adabelief",
    "adafactor",
    "adam",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "certain",
    "dadapt_adamw",
    "dog",
    "lamb",
    "momo",
    "momo_adam",
    "muon",
    "nadam",
    "nadamw",
    "novograd",
    "optimistic_adam_v2",
    "prodigy",
    "radam",
    "rmsprop",
    "safe_roots",
    "safe_sqrt",
    "schedule_free_adamw",
    "simplified_ademamix",
]
