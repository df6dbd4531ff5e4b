"""``python -m benchmarks``: times and weighs our methods and `jax.grad` over `lax.scan` side by side.

Writes ``benchmarks/results/NAME.json`` and the page ``docs/explanation/speed.md`` with its pictures. One
thread on a CPU, so that figures compare across machines; ``--quick`` runs the smaller half.
"""

import argparse
import os
import sys

if "--threads" not in sys.argv:
    # Before JAX starts: one thread.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from benchmarks import page, suite


def main() -> None:
    """Runs the suite and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(suite.PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no transformer")
    parser.add_argument("--threads", action="store_true", help="as many threads as there are")
    parser.add_argument(
        "--page-only", action="store_true", help="write the page from stored results"
    )
    options = parser.parse_args()
    unknown = set(options.parts) - set(suite.PARTS)
    if unknown:
        parser.error(
            f"unknown part {', '.join(sorted(unknown))}: choose of {', '.join(suite.PARTS)}"
        )
    if not options.page_only:
        suite.run(options.parts or list(suite.PARTS), quick=options.quick)
    page.write()


main()
