"""`docs/private-apis.md` lists every private part of another package that we use, and each still exists."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from django.test import SimpleTestCase

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "private-apis.md"
PRODUCT = ("backend", "schema", "rest", "tasks")
OURS = (*PRODUCT, "tests", "bench")
# Documented in spite of the underscore: Django's Meta API and managers, named tuples, os._exit().
DOCUMENTED = {"_meta", "_default_manager", "_replace", "_exit"}


class Row(NamedTuple):
    owner: str
    names: list[str]
    file: str
    test: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            owner, names, file, _, test = cells
            found.append(Row(owner.strip("`"), re.findall("`([^`]+)`", names), file.strip("`"), test.strip("`")))
    return found


def owner_of(path: str) -> Any:
    """The module or class of a path such as `daphne.server:Server`. Raises ImportError, AttributeError."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


def has(owner: Any, name: str) -> bool:
    """Whether `owner` has an attribute, an instance attribute, a parameter (`name=`) or a quoted text in its source."""
    if name.startswith('"'):
        return name.strip('"') in _source(owner)
    if name.endswith("="):
        return re.search(rf"\b{name[:-1]}\b *[:=,]", _source(owner)) is not None
    return hasattr(owner, name) or re.search(rf"\bself\.{name}\b", _source(owner)) is not None


@cache
def _source(owner: Any) -> str:
    return "".join(inspect.getsource(item) for item in getattr(owner, "__mro__", [owner]) if item is not object)


@cache
def trees() -> dict[str, ast.Module]:
    paths = (path for folder in OURS for path in sorted((ROOT / folder).rglob("*.py")))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


class PageTests(SimpleTestCase):
    def test_every_listed_name_exists(self) -> None:
        gone = []
        for row in rows():
            for name in row.names:
                try:
                    is_there = has(owner_of(row.owner), name)
                except (ImportError, AttributeError):
                    is_there = False
                if not is_there:
                    package = re.split("[.:]", row.owner)[0]
                    gone.append(f"{row.file} needs {name} of {row.owner}, which {package} no longer has.")
        self.assertEqual(gone, [], f"Correct the file and its row in {PAGE.name}.")

    def test_each_row_matches_its_file(self) -> None:
        wrong = []
        for row in rows():
            path = ROOT / row.file
            text = path.read_text() if path.exists() else ""
            for name in row.names:
                bare = name.strip('"=')
                if not re.search(rf"\b{bare}\b", text):
                    wrong.append(f"{row.file} does not use {name} of {row.owner}.")
            if row.test != "itself" and not (ROOT / row.test).exists():
                wrong.append(f"There is no {row.test}.")
        self.assertEqual(wrong, [], f"Correct the rows in {PAGE.name}.")


class CodeTests(SimpleTestCase):
    def test_every_private_name_of_another_package_that_we_use_is_listed(self) -> None:
        ours = {name for tree in trees().values() for name in _defined(tree)}
        self.assert_listed(
            (file, name, ast.unparse(node))
            for file, tree in trees().items()
            for node in ast.walk(tree)
            for name in _used(node)
            if is_private(name) and name not in ours
        )

    def test_every_private_name_of_another_package_that_we_override_is_listed(self) -> None:
        for package in PRODUCT:
            for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
                if not module.name.endswith("__main__") and ".migrations" not in module.name:
                    import_module(module.name)
        modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in PRODUCT]
        classes = {item for module in modules for item in vars(module).values() if isinstance(item, type)}
        self.assert_listed(found for cls in classes for found in _overridden(cls))

    def assert_listed(self, uses: Iterable[tuple[str, str, str]]) -> None:
        """Each use is a file, a name and a description."""
        listed = {(row.file, name) for row in rows() for name in row.names}
        unlisted = [
            f"{file} uses {description}, private to another package."
            for file, name, description in uses
            if (file, name) not in listed
        ]
        self.assertEqual(unlisted, [], f"Avoid it, or list it in {PAGE.name}.")


def _used(node: ast.AST) -> Iterator[str]:
    """The names of other objects or modules that an expression or an import uses."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
        if isinstance(node.args[1], ast.Constant):
            yield str(node.args[1].value)
    elif isinstance(node, ast.Import):
        yield from (part for alias in node.names for part in alias.name.split("."))
    elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] not in OURS:
        yield from [*(node.module or "").split("."), *(alias.name for alias in node.names)]


def _overridden(cls: type) -> Iterator[tuple[str, str, str]]:
    """The private names that both a class of ours and one of its bases from another package define."""
    if cls.__module__.partition(".")[0] not in PRODUCT:
        return
    file = str(Path(inspect.getfile(cls)).relative_to(ROOT))
    written = set(_defined(trees()[file]))  # without the names that a metaclass adds
    foreign = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] not in OURS]
    for name in filter(is_private, written & vars(cls).keys()):
        yield from ((file, name, f"{base.__name__}.{name}") for base in foreign if name in vars(base))


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names of functions, classes and variables, and of attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
