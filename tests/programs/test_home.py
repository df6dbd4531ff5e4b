"""What a release of JAX may change is imported in one place."""

import pytest
from library_source import FILES, imports

HOME = {
    "_programs/avals.py",
    "_programs/liveness.py",
    "_programs/tracing.py",
    "_programs/walk.py",
}
INTERNAL = ("jax.extend", "jax.interpreters", "jax.core", "jax._src")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_internals_of_jax_are_imported_at_home_only(file):
    found = [f"line {line}: {module}" for module, line in imports(file.tree) if is_internal(module)]
    assert file.path in HOME or not found, (
        f"src/rfho/{file.path} imports what a release of JAX may change; ask a file of "
        "_programs/ instead:\n" + "\n".join(found)
    )


@pytest.mark.parametrize("path", sorted(HOME))
def test_every_home_is_one(path):
    (file,) = [file for file in FILES if file.path == path]
    assert any(is_internal(module) for module, _ in imports(file.tree))


def is_internal(module):
    return module.startswith(INTERNAL)
