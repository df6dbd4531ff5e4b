"""``python -m benchmarks.reproduce NAME``: the published figure of a paper beside ours.

Without a name, all of them; ``--small`` is a trial of a few steps whose figures mean nothing. Data are looked
for in the folder that RFHO_DATA names. `docs/explanation/reproductions.md` quotes what it prints.
"""

from benchmarks.threads import one_thread

if __name__ == "__main__":
    one_thread()

import argparse
import importlib
import time

import jax

NAMES = ("baydin", "bertrand", "grazzi", "hoag", "lorraine", "marthe", "nystrom")


def main(given: list[str] | None = None) -> None:
    """Prints the rows of each paper that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--small", action="store_true", help="a trial of a few steps")
    options = parser.parse_args(given)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown paper {unknown[0]!r}: choose of {', '.join(NAMES)}")
    jax.config.update("jax_enable_x64", True)
    print("| paper | experiment | published | rfho | holds |\n|---|---|---|---|---|")
    for name in options.names or NAMES:
        module = importlib.import_module(f"benchmarks.reproduce.{name}")
        begin = time.process_time()
        for row in module.run(small=options.small):
            holds = "yes" if row.holds else "no"
            print(f"| {module.PAPER} | {row.what} | {row.published} | {row.ours} | {holds} |")
        print(f"{name}: {time.process_time() - begin:.0f} CPU s with compiling\n", flush=True)


if __name__ == "__main__":
    main()
