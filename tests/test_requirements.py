"""Imported packages are declared. Packages whose private parts we use are pinned to a minor version."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from django.test import SimpleTestCase

from tests.test_imports import files, imports_of
from tests.test_private_apis import OURS, PRODUCT, rows

ROOT = Path(__file__).resolve().parent.parent


def declared(name: str) -> dict[str, str]:
    """Packages and their versions in a file of `requirements/` and in the files that it includes."""
    found: dict[str, str] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= declared(line.removeprefix("-r "))
        elif match := re.match(r"([\w.-]+)(?:\[[\w,-]+\])?(.*)", line):
            found[_canonical(match[1])] = match[2]
    return found


@cache
def packages_of(top: str) -> set[str]:
    """The packages that provide a top-level module; only the one with its name, if there is one."""
    packages = {_canonical(package) for package in packages_distributions().get(top, [top])}
    return packages & {_canonical(top)} or packages


def _canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


class RequirementTests(SimpleTestCase):
    def assert_declared(self, folders: tuple[str, ...], requirements: str) -> None:
        known = declared(requirements).keys()
        wrong = [
            f"{path.relative_to(ROOT)} imports {top}: declare its package in requirements/{requirements}."
            for folder in folders
            for path in files(folder)
            for top in sorted({module.partition(".")[0] for module in imports_of(path)} - sys.stdlib_module_names)
            if top not in (*OURS, "") and not packages_of(top) & known
        ]
        self.assertEqual(wrong, [])

    def test_every_import_of_the_product_is_declared(self) -> None:
        self.assert_declared(PRODUCT, "base.in")

    def test_every_import_of_tests_and_benchmarks_is_declared(self) -> None:
        self.assert_declared(("tests", "bench"), "dev.in")

    def test_packages_with_private_parts_that_we_use_are_pinned_to_a_minor_version(self) -> None:
        versions = declared("base.in")
        modules = {re.split("[.:]", row.owner)[0] for row in rows()} - sys.stdlib_module_names
        for package in sorted(package for module in modules for package in packages_of(module) & versions.keys()):
            self.assertRegex(versions[package], r"^~=\d+\.\d+\.\d+$", f"{package} in requirements/base.in")
