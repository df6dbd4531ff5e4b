"""The source files of the library as data: what each imports and calls, without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "rfho"


class File(NamedTuple):
    """A file of the library, by its path below `src/rfho/`."""

    path: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse((PACKAGE / self.path).read_text(encoding="utf-8"), self.path)

    @property
    def module(self) -> str:
        dotted = ".".join(("rfho", *self.path.removesuffix(".py").split("/")))
        return dotted.removesuffix(".__init__")

    @property
    def package(self) -> str:
        """The package that the file lies in; for an `__init__.py`, the one that it is."""
        return self.module if self.is_init else self.module.rpartition(".")[0]

    @property
    def is_init(self) -> bool:
        return self.path.endswith("__init__.py")

    def is_in(self, *names: str) -> bool:
        """Whether the file is among the names, or in a folder among them ("folder/")."""
        folders = tuple(name for name in names if name.endswith("/"))
        return self.path in names or self.path.startswith(folders)


FILES = [File(path.relative_to(PACKAGE).as_posix()) for path in sorted(PACKAGE.rglob("*.py"))]
BY_MODULE = {file.module: file for file in FILES}


class Import(NamedTuple):
    """A module that is imported, and the line where that happens."""

    module: str
    line: int


def imports(tree: ast.AST) -> Iterator[Import]:
    """What is imported anywhere in a tree, in functions too; relative imports are left out."""
    for node in ast.walk(tree):
        yield from _imported_by(node)


def immediate_imports(tree: ast.Module) -> Iterator[Import]:
    """What is imported as soon as the file itself is: not in functions, not for typing."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield from _imported_by(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += [child for child in ast.iter_child_nodes(node) if not _is_for_typing(child)]


def imports_of_rfho(file: File) -> Iterator[tuple[Import, str]]:
    """Every import of the library's own modules, and the name taken from it, "" for none."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "rfho"]
            yield from ((Import(name, node.lineno), "") for name in names)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, file)
            if origin.split(".")[0] == "rfho":
                yield from ((Import(origin, node.lineno), alias.name) for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Calls of plain names, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def offered(module: str) -> set[str]:
    """The names that a module takes from others, as an `__init__.py` does to offer them."""
    if module not in BY_MODULE:
        return set()
    taken = [node for node in BY_MODULE[module].tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in taken for alias in node.names}


def _absolute(node: ast.ImportFrom, file: File) -> str:
    """The module that a `from … import` names, its leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    parents = file.package.split(".")
    kept = parents[: len(parents) - (node.level - 1)]
    return ".".join([*kept, *filter(None, [node.module])])


def _imported_by(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield Import(node.module, node.lineno)


def _is_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
