"""``python -m benchmarks.readme``: the README's example, its accuracy before and after, and a grid beside it.

50 hypergradients in reverse mode take as long as some 150 trainings, which is a grid of 12 x 12.
"""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import rfho

README = Path(__file__).parents[1] / "README.md"
EXAMPLE = re.compile(r"<!-- example -->\n```python\n(.*?)```", re.DOTALL)
POINTS = 12


def main() -> None:
    """Runs the example, and prints what the README says beside it."""
    (example,) = EXAMPLE.findall(README.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(example, names)
    problem, solution = names["problem"], names["solution"]
    x, y = problem.valid

    def right(w: Any) -> float:
        return 100 * float(jnp.mean(jnp.argmax(x @ w, axis=1) == y))

    before = rfho.train(problem, {"lr": 0.1, "l2": 1e-2})
    print(f"right on the validation data: {right(before.params):.1f} % before, ", end="")
    print(f"{right(solution.best.params):.1f} % at the best step")
    grid = [
        (float(rfho.train(problem, {"lr": lr, "l2": l2}).value), lr, l2)
        for lr in np.geomspace(0.01, 10, POINTS)
        for l2 in np.geomspace(1e-5, 0.1, POINTS)
    ]
    lowest, lr, l2 = min(grid)
    print(
        f"the best of a grid of {POINTS} x {POINTS}: {lowest:.4f} at lr = {lr:.3g}, l2 = {l2:.3g}"
    )


if __name__ == "__main__":
    main()
