"""Whether a model trains or evaluates, said in the words of its own signature."""

import inspect
from collections.abc import Callable
from typing import Any

_TRAINS = ("train", "training", "is_training")
_RESTS = ("deterministic", "use_running_average", "inference")


def mode_of(function: Callable[..., Any], *, inputs: int) -> Callable[[bool], dict[str, bool]]:
    """The keyword arguments that tell ``function`` whether it trains.

    Args:
        function: what a model is called by.
        inputs: how many arguments come before: the model itself, its inputs.

    Returns:
        ``training -> keyword arguments``; empty for a function that knows no modes.

    Raises:
        TypeError: it needs another argument, of which nobody knows whether it stands for training.

    Example:
        >>> from rfho.adapters.mode import mode_of
        >>> mode_of(lambda x, train: x, inputs=1)(True)
        {'train': True}
        >>> mode_of(lambda x, deterministic=True: x, inputs=1)(True)
        {'deterministic': False}
    """
    parameters = list(inspect.signature(function).parameters.values())[inputs:]
    for parameter in parameters:
        name = parameter.name
        if name in _TRAINS or name in _RESTS:
            return lambda training, name=name: {name: training == (name in _TRAINS)}
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise TypeError(
                f"the model takes {parameter.name!r} after its inputs, and nobody knows whether that stands for "
                f"training: pass call=lambda model, inputs, training: model(inputs, {parameter.name}=...)"
            )
    return lambda training: {}
