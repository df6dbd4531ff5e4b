"""Who may import whom.

A file of `src/rfho/` belongs to one row of `ROWS`. It imports strictly earlier rows, or the
`base.py` of its own package; a package's `__init__.py` may also gather the files of its package.
Whoever stands behind the surface sees of what is before it only what users see: `PUBLIC`.
"""

import ast
import re
import sys
import tomllib

import pytest
from library_source import (
    BY_MODULE,
    FILES,
    ROOT,
    File,
    calls,
    immediate_imports,
    imports,
    imports_of_rfho,
    offered,
)

# From the first row to the last. A name with a slash at its end stands for all files of a package;
# a file of a package that is named itself stands where it is named.
ROWS = (
    ("vocabulary: types", "typing.py"),
    ("vocabulary", "arguments.py", "tree.py", "result.py", "kernels.py", "products.py", "room.py"),
    ("nouns: digits", "fixed_point.py"),
    (
        "nouns: parts",
        "exact_momentum.py",
        "finite_differences.py",
        "grad.py",
        "schedules.py",
        "solvers/",
        "spectrum.py",
        "work.py",
    ),
    ("nouns", "dynamics/", "stream.py", "domains/", "optim/"),
    ("nouns: upon them", "dynamics/reversible.py", "dynamics/with_value.py"),
    ("problem: parts", "storage.py", "shelf.py"),
    ("problem", "problem.py", "checkpoint/"),
    ("problem: upon it", "over_tasks.py", "chunks.py", "tasks.py", "validate.py"),
    ("engines", "unroll.py", "tangent.py"),
    ("engines: the end of training", "adjoint.py"),
    ("engines: its matrix", "curvature.py"),
    ("engines: its examination", "audit.py", "refusal.py"),
    ("methods", "hyper_gradients/"),
    ("choice: forecasts", "forecast.py"),
    ("choice: candidates", "candidates.py"),
    ("choice", "hyper_gradients/auto.py"),
    ("one estimate", "hyper_gradient.py", "second_order.py"),
    ("one estimate: check", "check.py"),
    ("one estimate: what is looked at", "diagnose/record.py", "diagnose/equations.py"),
    ("one estimate: findings", "diagnose/"),
    ("one estimate: diagnose", "diagnose/diagnosis.py", "diagnose/symptoms.py"),
    ("outer loop", "tuner.py"),
    ("runs: tools", "progress.py", "snapshot.py"),
    ("runs", "tune.py"),
    ("runs: many", "population.py"),
    ("surface", "__init__.py"),
    ("edge: parts", "datasets/idx.py", "datasets/log_mel.py", "testing/family.py"),
    ("edge", "adapters/", "datasets/", "plots.py", "testing/", "tracking/"),
    ("clients: forms", "experiments/toml.py", "experiments/table.py", "experiments/pictures.py"),
    ("clients: time", "experiments/stopwatch.py"),
    ("clients: trials", "experiments/trials.py"),
    ("clients: networks", "experiments/network.py"),
    ("clients: upon networks", "experiments/convolution.py", "experiments/minibatch_orders.py"),
    ("clients: settings", "experiments/settings.py", "experiments/about.py"),
    ("clients: episodes and texts", "experiments/few_shot.py", "experiments/mixed_text.py"),
    (
        "clients: data",
        "experiments/cleaning_data.py",
        "experiments/feature_data.py",
        "experiments/frame_data.py",
        "experiments/image_data.py",
    ),
    (
        "clients: upon data",
        "experiments/cleaning_models.py",
        "experiments/few_images.py",
        "experiments/ground_models.py",
        "experiments/image_features.py",
        "experiments/sparse_regression.py",
        "experiments/speech_network.py",
    ),
    ("clients: run folder", "experiments/run_folder.py"),
    (
        "clients: report",
        "experiments/chaos_report.py",
        "experiments/cleaning_report.py",
        "experiments/cost_report.py",
        "experiments/few_shot_report.py",
        "experiments/interactions_report.py",
        "experiments/penalties_report.py",
        "experiments/report.py",
        "experiments/schedule_report.py",
        "experiments/speech_report.py",
        "experiments/surface_report.py",
    ),
    ("clients: protocol", "experiments/base.py"),
    ("clients: experiments", "experiments/"),
    ("clients: command line", "cli.py"),
)

# The modules up to the surface that users import, and so may the edge and the clients.
PUBLIC = {
    "rfho",
    "rfho.diagnose",
    "rfho.domains",
    "rfho.dynamics",
    "rfho.grad",
    "rfho.hyper_gradients",
    "rfho.optim",
    "rfho.schedules",
    "rfho.solvers",
}

# Clocks, files, streams and hidden state: not before the runs, but for what stores outside of JAX.
IMPURE = {
    *("asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random"),
    *("shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time"),
}
MAY_BE_IMPURE = {"room.py", "shelf.py"}

INDEX = {name: number for number, (name, *_) in enumerate(ROWS)}
SURFACE = INDEX["surface"]

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)


@each_file
def test_every_file_has_a_row(file):
    assert row_of(file) >= 0, (
        f"src/rfho/{file.path} is in no row: add it to ROWS in tests/test_architecture.py, in the "
        "row after everything that it imports, and to the table in docs/design.md"
    )


@each_file
def test_imports_point_strictly_backwards(file):
    wrong = [
        f"line {imported.line}: {module} (row '{row_name(module)}')"
        for imported, name in imports_of_rfho(file)
        if not may_import(file, module := meant(file, imported.module, name))
    ]
    assert not wrong, (
        f"src/rfho/{file.path} is in the row '{row_name(file.module)}' and imports what is not in "
        "an earlier row, or not public:\n" + "\n".join(wrong)
    )


@each_file
def test_the_core_needs_only_the_core_dependencies(file):
    if row_of(file) > SURFACE:
        return
    allowed = core_dependencies() | sys.stdlib_module_names | {"rfho"}
    wrong = [
        f"line {line}: {module}"
        for module, line in immediate_imports(file.tree)
        if module.split(".")[0] not in allowed
    ]
    assert not wrong, (
        f"src/rfho/{file.path} cannot be imported without an extra; import this in the function "
        "that uses it:\n" + "\n".join(wrong)
    )


@each_file
def test_no_clock_and_no_file_before_the_runs(file):
    if row_of(file) >= INDEX["runs: tools"] or file.path in MAY_BE_IMPURE:
        return
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(file.tree)
        if module.split(".")[0] in IMPURE
    ]
    wrong += [f"line {line}: open(" for name, line in calls(file.tree) if name == "open"]
    assert not wrong, f"src/rfho/{file.path} is not pure:\n" + "\n".join(wrong)


def test_an_earlier_row_may_be_imported_and_a_later_one_not():
    assert may_import(File("problem.py"), "rfho.tree")
    assert not may_import(File("tree.py"), "rfho.problem")


def test_a_neighbour_in_the_row_may_not_be_imported():
    assert not may_import(File("tree.py"), "rfho.result")


def test_the_base_of_the_own_package_may_be_imported_and_a_sibling_not():
    assert may_import(File("dynamics/descent.py"), "rfho.dynamics.base")
    assert may_import(File("dynamics/__init__.py"), "rfho.dynamics.descent")
    assert not may_import(File("dynamics/base.py"), "rfho.dynamics.descent")


def test_the_edge_imports_only_what_is_public():
    assert may_import(File("plots.py"), "rfho.dynamics")
    assert not may_import(File("plots.py"), "rfho.tree")


def test_a_file_that_is_named_itself_stands_where_it_is_named():
    assert row_of(File("hyper_gradients/auto.py")) == INDEX["choice"]
    assert row_of(File("hyper_gradients/reverse.py")) == INDEX["methods"]
    assert row_of(File("unheard_of.py")) == -1


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import cvxpy", ["cvxpy"]),
        ("try:\n    from cvxpy import Variable\nexcept ImportError:\n    pass", ["cvxpy"]),
        ("def project(x):\n    import cvxpy", []),
        ("if TYPE_CHECKING:\n    import cvxpy", []),
    ],
)
def test_an_import_is_immediate_if_it_happens_with_the_file(source, found):
    assert [module for module, _ in immediate_imports(ast.parse(source))] == found


def may_import(file: File, module: str) -> bool:
    """The rule of this module's docstring."""
    target = BY_MODULE.get(module)
    if target is None:
        return False
    same_package = target.package == file.package != "rfho"
    if same_package and (file.is_init or module.endswith(".base")):
        return True
    if row_of(file) > SURFACE >= row_of(target) and module not in PUBLIC:
        return False
    return 0 <= row_of(target) < row_of(file)


def meant(file: File, origin: str, name: str) -> str:
    """Which module `from origin import name` takes: a submodule if there is one of that name.

    The surface calls functions like the files that define them: behind the surface the function is
    meant, before the surface there is only the file.
    """
    inner = f"{origin}.{name}"
    means_the_name = row_of(file) > SURFACE and name in offered(origin)
    return inner if inner in BY_MODULE and not means_the_name else origin


def row_of(file: File) -> int:
    """The number of the file's row; -1 if it has none."""
    named = [number for number, (_, *files) in enumerate(ROWS) if file.path in files]
    held = [number for number, (_, *files) in enumerate(ROWS) if file.is_in(*files)]
    return [*named, *held, -1][0]


def row_name(module: str) -> str:
    """The name of a module's row, for messages."""
    row = row_of(BY_MODULE[module]) if module in BY_MODULE else -1
    return ROWS[row][0] if row >= 0 else "none"


def core_dependencies() -> set[str]:
    """The import names of what is installed without extras."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {re.split(r"[^\w-]", name)[0] for name in metadata["project"]["dependencies"]}
