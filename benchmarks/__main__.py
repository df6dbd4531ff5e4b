"""``python -m benchmarks``: times and weighs our methods and `jax.grad` over `lax.scan` side by side.

The part ``peers`` times the same problems in PyTorch, in an environment of its own that it makes.
Writes ``benchmarks/results/NAME.json`` and the page ``docs/explanation/speed.md`` with its pictures. One
thread on a CPU, so that figures compare across machines; ``--quick`` runs the smaller half.
"""

import argparse
import sys

from benchmarks.threads import one_thread

if "--threads" not in sys.argv:
    one_thread()

from benchmarks import page, suite
from benchmarks.peers import run as peers

PARTS = [*suite.PARTS, "peers"]


def main() -> None:
    """Runs the suite and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no transformer")
    parser.add_argument("--threads", action="store_true", help="as many threads as there are")
    parser.add_argument(
        "--page-only", action="store_true", help="write the page from stored results"
    )
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    if not options.page_only:
        parts = options.parts or PARTS
        suite.run([part for part in parts if part in suite.PARTS], quick=options.quick)
        if "peers" in parts:
            peers.run()
    page.write()


main()
