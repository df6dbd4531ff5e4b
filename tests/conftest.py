"""What every test takes for granted: float64, checked shapes, and the same drawn examples in CI.

jaxtyping and beartype check at run time the shapes that annotations promise. Their hook has to be
in place before `rfho` is first imported.
"""

import os

import hypothesis
import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)

install_import_hook("rfho", "beartype.beartype")

# Compilation makes the first example slow and says nothing about the others: no deadline.
hypothesis.settings.register_profile(
    "local",
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
