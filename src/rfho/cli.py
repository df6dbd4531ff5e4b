"""The entry point of the command ``rfho``; its commands are in `rfho.runs.commands`.

It is a file of its own so that a plain installation, without the packages that experiments need,
says what to install.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfho.runs.experiment import Experiment

_BAD_INPUT, _BY_CTRL_C = 2, 130


def main(
    arguments: Sequence[str] | None = None,
    experiments: "tuple[Experiment[Any], ...] | None" = None,
) -> int:
    """Carries out a command line.

    Args:
        arguments: by default those of the process.
        experiments: those that can be run, by default all of `rfho.experiments.EXPERIMENTS`.

    Returns:
        The exit code: 0, 2 for bad input (one line on stderr says which), 130 after Ctrl-C.
    """
    try:
        from rfho.datasets.commands import data
        from rfho.experiments import EXPERIMENTS
        from rfho.runs.commands import invoke
    except ModuleNotFoundError as error:
        if (error.name or "rfho").partition(".")[0] == "rfho":
            raise
        print(
            f"rfho: the command needs {error.name}, which is not installed: "
            "install the extra with pip install 'rfho[cli]'",
            file=sys.stderr,
        )
        return _BAD_INPUT
    except KeyboardInterrupt:
        return _BY_CTRL_C
    given = sys.argv[1:] if arguments is None else arguments
    return invoke(given, EXPERIMENTS if experiments is None else experiments, [data])
