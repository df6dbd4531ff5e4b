"""Optax's optimisers by their own names and with their own signatures, differentiable everywhere.

Each is `safe_roots` around the optimiser of the same name; its documentation is Optax's.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec

import optax
from optax import contrib

from rfho._programs.safe_roots import safe_roots

_Arguments = ParamSpec("_Arguments")
_Alias = Callable[_Arguments, optax.GradientTransformationExtraArgs]


def _differentiable(
    name: str,
    alias: Callable[_Arguments, optax.GradientTransformation],
) -> _Alias[_Arguments]:
    @functools.wraps(alias)
    def build(
        *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> optax.GradientTransformationExtraArgs:
        return safe_roots(alias(*args, **kwargs))

    build.__module__ = __name__
    build.__name__ = build.__qualname__ = name.rpartition(".")[2]
    build.__doc__ = f"As `{name}`, with finite derivatives where a gradient is exactly zero."
    return build


adabelief = _differentiable("optax.adabelief", optax.adabelief)
adafactor = _differentiable("optax.adafactor", optax.adafactor)
adam = _differentiable("optax.adam", optax.adam)
adamw = _differentiable("optax.adamw", optax.adamw)
adan = _differentiable("optax.adan", optax.adan)
ademamix = _differentiable("optax.contrib.ademamix", contrib.ademamix)
adopt = _differentiable("optax.contrib.adopt", contrib.adopt)
amsgrad = _differentiable("optax.amsgrad", optax.amsgrad)
dadapt_adamw = _differentiable("optax.contrib.dadapt_adamw", contrib.dadapt_adamw)
dog = _differentiable("optax.contrib.dog", contrib.dog)
lamb = _differentiable("optax.lamb", optax.lamb)
momo = _differentiable("optax.contrib.momo", contrib.momo)
momo_adam = _differentiable("optax.contrib.momo_adam", contrib.momo_adam)
muon = _differentiable("optax.contrib.muon", contrib.muon)
nadam = _differentiable("optax.nadam", optax.nadam)
nadamw = _differentiable("optax.nadamw", optax.nadamw)
novograd = _differentiable("optax.novograd", optax.novograd)
optimistic_adam_v2 = _differentiable("optax.optimistic_adam_v2", optax.optimistic_adam_v2)
prodigy = _differentiable("optax.contrib.prodigy", contrib.prodigy)
radam = _differentiable("optax.radam", optax.radam)
rmsprop = _differentiable("optax.rmsprop", optax.rmsprop)
schedule_free_adamw = _differentiable(
    "optax.contrib.schedule_free_adamw", contrib.schedule_free_adamw
)
simplified_ademamix = _differentiable(
    "optax.contrib.simplified_ademamix", contrib.simplified_ademamix
)
