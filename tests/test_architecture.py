"""Who may import whom.

The unit is the package. Each room of `src/rfho/`, a package or one of the few files beside them, stands in
one row of `ROWS`; it imports rooms of strictly earlier rows and itself, without a circle among its own
files. Whoever stands behind the surface sees of what is before it only what users see.
"""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from library_source import (
    BY_MODULE,
    FILES,
    PACKAGE,
    ROOT,
    File,
    calls,
    immediate_imports,
    imports,
    imports_of_rfho,
    offered,
)

# From the first row to the last. A name with a slash at its end is a package.
ROWS = (
    ("types", "typing.py"),
    ("sentences", "errors.py"),
    ("files", "files/"),
    ("programs", "_programs/"),
    ("nouns", "domains/", "dynamics/", "layers/", "optim/", "solvers/"),
    ("problem", "problem/"),
    ("memory", "memory/"),
    ("placement", "placement/"),
    ("engines", "_engines/"),
    ("implicit", "_implicit/"),
    ("forecasts", "choice/"),
    ("methods", "hyper_gradients/"),
    ("checks", "checks/"),
    ("outer loop", "outer/"),
    ("attribution", "attribution/"),
    ("surface", "__init__.py"),
    ("runs", "runs/"),
    ("edge", "adapters/", "datasets/", "testing/", "tracking/"),
    ("experiments", "experiments/"),
    ("command line", "cli.py"),
)

LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 50
"""The budget of CONTRIBUTING; a docstring does not count for its function."""

# Clocks, files, streams and hidden state: not before the runs, but for what stores outside of JAX.
IMPURE = {
    *("asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random"),
    *("shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time"),
}
MAY_BE_IMPURE = {"files/", "memory/device.py", "memory/disk_shelf.py"}

INDEX = {name: number for number, (name, *_) in enumerate(ROWS)}
SURFACE = INDEX["surface"]
OUTER = INDEX["outer loop"]
ROOMS = [room for _, *rooms in ROWS for room in rooms]

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)


@each_file
def test_every_file_is_in_a_room_of_a_row(file):
    assert row_of(file) >= 0, (
        f"src/rfho/{file.path} is in no row: add its room to ROWS in tests/test_architecture.py, in the "
        "row after everything that it imports, and to the table in docs/design.md"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_of_a_row_exists(room):
    assert (PACKAGE / room).exists(), f"a row names src/rfho/{room}, which does not exist"


def test_there_are_no_more_rooms_than_a_reader_can_hold():
    assert len([room for room in ROOMS if room != "__init__.py"]) <= 26


@each_file
def test_imports_point_strictly_backwards(file):
    wrong = [
        f"line {imported.line}: {module} (row '{row_name(module)}')"
        for imported, name in imports_of_rfho(file)
        if not may_import(file, module := meant(imported.module, name))
    ]
    assert not wrong, (
        f"src/rfho/{file.path} is in the row '{row_name(file.module)}' and imports what is not in "
        "an earlier row, or not public:\n" + "\n".join(wrong)
    )


@pytest.mark.parametrize("room", [room for room in ROOMS if room.endswith("/")])
def test_no_room_has_a_circle_of_imports(room):
    arrows = {
        file.module: {
            module
            for imported, name in imports_of_rfho(file)
            if (module := meant(imported.module, name)) in BY_MODULE
            and BY_MODULE[module].is_in(room)
        }
        for file in FILES
        if file.is_in(room)
    }
    assert not circle(arrows), f"these import each other: {' -> '.join(circle(arrows))}"


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


def test_importing_the_library_loads_no_extra():
    extras = ("matplotlib", "typer", "rich", "pooch", "sklearn", "scipy.stats", "cvxpy", "PIL")
    program = f"import rfho, sys; print([name for name in {extras!r} if name in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


@each_file
def test_no_clock_and_no_file_before_the_runs(file):
    if row_of(file) >= OUTER or file.is_in(*MAY_BE_IMPURE):
        return
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(file.tree)
        if module.split(".")[0] in IMPURE
    ]
    wrong += [f"line {line}: open(" for name, line in calls(file.tree) if name == "open"]
    assert not wrong, f"src/rfho/{file.path} is not pure:\n" + "\n".join(wrong)


@each_file
def test_no_package_offers_a_name_that_hides_a_module_of_its_own(file):
    if not file.is_init:
        return
    hidden = {name for name in offered(file.module) if f"{file.module}.{name}" in BY_MODULE}
    hidden = {name for name in hidden if not taken_as_module(file, name)}
    assert not hidden, f"{file.module} offers {hidden}, which are also files: rename the files"


@each_file
def test_no_file_is_longer_than_the_budget(file):
    lines = (PACKAGE / file.path).read_text(encoding="utf-8").count("\n")
    assert lines <= LINES_OF_A_FILE, f"src/rfho/{file.path} has {lines} lines"


@each_file
def test_no_function_is_longer_than_the_budget(file):
    long = [
        f"{node.name} (line {node.lineno}): {lines_of(node)} lines"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef) and lines_of(node) > LINES_OF_A_FUNCTION
    ]
    assert not long, f"src/rfho/{file.path}: {', '.join(long)}"


def test_contributing_states_the_budget():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"{LINES_OF_A_FILE} lines" in text
    assert f"{LINES_OF_A_FUNCTION} lines" in text


def test_the_table_in_the_design_is_this_one():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| ((?:`[^`]+`(?:, )?)+) \|", text, flags=re.MULTILINE)
    assert [(name, *re.findall(r"`([^`]+)`", rooms)) for name, rooms in rows] == list(ROWS)


def test_an_earlier_row_may_be_imported_and_a_later_one_not():
    assert may_import(File("problem/problem.py"), "rfho._programs.trees")
    assert not may_import(File("_programs/trees.py"), "rfho.problem.problem")


def test_a_neighbour_in_the_row_may_not_be_imported():
    assert not may_import(File("solvers/base.py"), "rfho.dynamics.base")


def test_a_file_of_the_own_package_may_be_imported():
    assert may_import(File("dynamics/descent.py"), "rfho.dynamics.base")


def test_the_edge_imports_only_what_is_public():
    assert may_import(File("datasets/base.py"), "rfho.dynamics")
    assert may_import(File("datasets/base.py"), "rfho.errors")
    assert not may_import(File("datasets/base.py"), "rfho._programs.trees")
    assert not may_import(File("datasets/base.py"), "rfho.dynamics.descent")


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


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
    if room_of(target) == room_of(file):
        return True
    if row_of(file) > SURFACE >= row_of(target) and not is_public(target):
        return False
    return 0 <= row_of(target) < row_of(file)


def is_public(file: File) -> bool:
    """Whether users import it: a room whose name does not begin with an underscore, not a file in it."""
    parts = file.module.split(".")
    return len(parts) <= 2 and not parts[-1].startswith("_")


def meant(origin: str, name: str) -> str:
    """Which module `from origin import name` takes: a submodule if there is one of that name."""
    inner = f"{origin}.{name}"
    return inner if inner in BY_MODULE else origin


def taken_as_module(file: File, name: str) -> bool:
    """Whether an `__init__.py` takes a name from where it is a module, rather than a thing in one."""
    return any(
        meant(imported.module, taken) == f"{file.module}.{name}"
        for imported, taken in imports_of_rfho(file)
        if taken == name
    )


def room_of(file: File) -> str:
    """The package directly below `rfho` that a file lies in, or the file itself."""
    head, slash, _ = file.path.partition("/")
    return head + slash


def row_of(file: File) -> int:
    """The number of the row of the file's room; -1 if it has none."""
    rows = [number for number, (_, *rooms) in enumerate(ROWS) if room_of(file) in rooms]
    return [*rows, -1][0]


def row_name(module: str) -> str:
    """The name of a module's row, for messages."""
    row = row_of(BY_MODULE[module]) if module in BY_MODULE else -1
    return ROWS[row][0] if row >= 0 else "none"


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules that a way from some module back to itself passes, if there is one."""
    left = dict(arrows)
    while ready := [name for name, targets in left.items() if not targets & left.keys() - {name}]:
        left = {name: targets for name, targets in left.items() if name not in ready}
    return sorted(left)


def lines_of(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring."""
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (docstring or "\n").count("\n") - 1


def core_dependencies() -> set[str]:
    """The import names of what is installed without extras."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {re.split(r"[^\w-]", name)[0] for name in metadata["project"]["dependencies"]}
