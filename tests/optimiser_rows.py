"""Every public optimiser of Optax that can be built from floats, and the settings at which it is tried.

The settings are larger than usual where the usual value would hide its own effect (ε, the momenta):
whether a derivative exists does not depend on them, and how well it can be measured does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from optax import contrib

import rfho


class Row(NamedTuple):
    """An optimiser as a function of its float settings.

    Attributes:
        build: takes the settings by name.
        settings: where they are tried. A setting named ``eps_root`` is tried at zero too.
        dynamics: what gives the optimiser all that it asks for.
    """

    build: Callable[..., optax.GradientTransformation]
    settings: dict[str, float]
    dynamics: Callable[..., rfho.dynamics.AbstractDynamics] = rfho.Descent


RATE = {"learning_rate": 0.05}
ADAM = {**RATE, "b1": 0.8, "b2": 0.9, "eps": 0.01}
ROOTED = {**ADAM, "eps_root": 0.02}
DECAY = {"weight_decay": 0.1}


def of_optax() -> dict[str, Row]:
    """The aliases that Optax offers on its surface."""
    return {
        "adabelief": Row(optax.adabelief, ROOTED),
        "adadelta": Row(optax.adadelta, {**RATE, "rho": 0.8, "eps": 0.01, **DECAY}),
        "adafactor": Row(
            _fixed(optax.adafactor, min_dim_size_to_factor=2),
            {**RATE, "decay_rate": 0.8, "clipping_threshold": 0.7, "weight_decay_rate": 0.1},
        ),
        "adagrad": Row(optax.adagrad, {**RATE, "initial_accumulator_value": 0.1, "eps": 0.01}),
        "adam": Row(optax.adam, ROOTED),
        "adam, nesterov": Row(_fixed(optax.adam, nesterov=True), ROOTED),
        "adamax": Row(optax.adamax, ADAM),
        "adamaxw": Row(optax.adamaxw, {**ADAM, **DECAY}),
        "adamw": Row(optax.adamw, {**ROOTED, **DECAY}),
        "adan": Row(optax.adan, {**ROOTED, "b3": 0.9, **DECAY}),
        "amsgrad": Row(optax.amsgrad, ROOTED),
        "fromage": Row(optax.fromage, {**RATE, "min_norm": 0.01}),
        "lamb": Row(optax.lamb, {**ROOTED, **DECAY}),
        "lars": Row(
            optax.lars, {**RATE, **DECAY, "trust_coefficient": 0.5, "eps": 0.01, "momentum": 0.7}
        ),
        "lbfgs, no line search": Row(_fixed(optax.lbfgs, linesearch=None), RATE),
        "lbfgs": Row(optax.lbfgs, RATE, rfho.dynamics.DescentWithValue),
        "lion": Row(optax.lion, {**RATE, "b1": 0.8, "b2": 0.9, **DECAY}),
        "nadam": Row(optax.nadam, ROOTED),
        "nadamw": Row(optax.nadamw, {**ROOTED, **DECAY}),
        "noisy_sgd": Row(_fixed(optax.noisy_sgd, key=0), {**RATE, "eta": 0.01, "gamma": 0.55}),
        "novograd": Row(optax.novograd, {**ROOTED, **DECAY}),
        "optimistic_adam_v2": Row(optax.optimistic_adam_v2, {**ROOTED, "alpha": 0.9, "beta": 0.8}),
        "optimistic_gradient_descent": Row(
            optax.optimistic_gradient_descent, {**RATE, "alpha": 0.9, "beta": 0.8}
        ),
        "polyak_sgd": Row(
            optax.polyak_sgd,
            {"max_learning_rate": 100.0, "scaling": 0.3, "f_min": -0.5, "eps": 0.01},
            rfho.dynamics.DescentWithValue,
        ),
        "radam": Row(optax.radam, ROOTED),
        "rmsprop": Row(optax.rmsprop, {**RATE, "decay": 0.8, "eps": 0.01, "initial_scale": 0.1}),
        "rmsprop, centred": Row(
            _fixed(optax.rmsprop, centered=True),
            {**RATE, "decay": 0.8, "eps": 0.01, "momentum": 0.7},
        ),
        "rmsprop, eps_in_sqrt=False": Row(
            _fixed(optax.rmsprop, eps_in_sqrt=False), {**RATE, "decay": 0.8, "eps": 0.01}
        ),
        "rprop": Row(
            optax.rprop,
            {**RATE, "eta_minus": 0.5, "eta_plus": 1.2, "min_step_size": 0.01, "max_step_size": 1},
        ),
        "sgd": Row(optax.sgd, RATE),
        "sgd, momentum": Row(optax.sgd, {**RATE, "momentum": 0.7}),
        "sgd, nesterov": Row(_fixed(optax.sgd, nesterov=True), {**RATE, "momentum": 0.7}),
        "sign_sgd": Row(optax.sign_sgd, RATE),
        "signum": Row(optax.signum, {**RATE, "beta": 0.7}),
        "sm3": Row(optax.sm3, {**RATE, "momentum": 0.7}),
        "yogi": Row(optax.yogi, ADAM),
    }


def of_contrib() -> dict[str, Row]:
    """Those of `optax.contrib`."""
    adaptive = {"learning_rate": 0.9, "eps": 0.01, **DECAY}
    betas = {"b1": 0.8, "b2": 0.9, "estim_lr0": 0.05}
    return {
        "contrib.acprop": Row(contrib.acprop, {**ROOTED, **DECAY}),
        "contrib.ademamix": Row(contrib.ademamix, {**ROOTED, "b3": 0.95, "alpha": 0.5, **DECAY}),
        "contrib.adopt": Row(contrib.adopt, ADAM),
        "contrib.cocob": Row(contrib.cocob, {**adaptive, "alpha": 2.0}),
        "contrib.dadapt_adamw": Row(_with_betas(contrib.dadapt_adamw), {**adaptive, **betas}),
        "contrib.dog": Row(_dog, {**adaptive, "init_step": 0.05}),
        "contrib.dowg": Row(contrib.dowg, {**adaptive, "init_estim_sq_dist": 0.05}),
        "contrib.galore": Row(_fixed(contrib.galore, rank=1), {**RATE, "scale": 0.5, **DECAY}),
        "contrib.madgrad": Row(contrib.madgrad, {**RATE, "momentum": 0.7, "eps": 0.01, **DECAY}),
        "contrib.mechanize": Row(_mechanized, {**RATE, **DECAY, "eps": 0.01, "s_init": 0.5}),
        "contrib.momo": Row(
            contrib.momo,
            {"learning_rate": 2.0, "beta": 0.8, "lower_bound": -0.5, **DECAY},
            rfho.dynamics.DescentWithValue,
        ),
        "contrib.momo_adam": Row(
            contrib.momo_adam,
            {**ADAM, "learning_rate": 2.0, "lower_bound": -0.5, **DECAY},
            rfho.dynamics.DescentWithValue,
        ),
        "contrib.muon": Row(
            contrib.muon,
            {**RATE, "beta": 0.8, "eps": 0.01, **DECAY, "adam_b1": 0.8, "adam_b2": 0.9},
        ),
        "contrib.prodigy": Row(_with_betas(contrib.prodigy), {**adaptive, **betas}),
        "contrib.sam": Row(_sharpness_aware, {**RATE, "radius": 0.05}),
        "contrib.schedule_free_adamw": Row(contrib.schedule_free_adamw, {**ADAM, **DECAY}),
        "contrib.schedule_free_sgd": Row(contrib.schedule_free_sgd, {**RATE, "b1": 0.8, **DECAY}),
        "contrib.simplified_ademamix": Row(
            contrib.simplified_ademamix, {**ROOTED, "alpha": 0.5, **DECAY}
        ),
        "contrib.sophia": Row(
            _fixed(contrib.sophia, update_interval=2),
            {**ADAM, "eps": 0.1, "gamma": 1.5, **DECAY},
            rfho.dynamics.DescentWithValue,
        ),
    }


def _fixed(alias: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    return lambda **settings: alias(**settings, **fixed)


def _with_betas(alias: Callable[..., Any]) -> Callable[..., Any]:
    return lambda b1, b2, **settings: alias(betas=(b1, b2), **settings)


def _dog(init_step: Any, **settings: Any) -> optax.GradientTransformation:
    return contrib.dog(init_step=("learning_rate", init_step), **settings)


def _mechanized(learning_rate: Any, **settings: Any) -> optax.GradientTransformation:
    return contrib.mechanize(optax.sgd(learning_rate), **settings)


def _sharpness_aware(learning_rate: Any, radius: Any) -> optax.GradientTransformation:
    adversary = optax.chain(contrib.normalize(), optax.sgd(radius))
    return contrib.sam(optax.sgd(learning_rate), adversary, sync_period=2)


ROWS = {**of_optax(), **of_contrib()}
