"""The direction of imports (docs/architecture.md).

models < access < cache < journal < resolvers, services < live < edges
"""

from __future__ import annotations

import ast
from pathlib import Path

from django.test import SimpleTestCase

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "backend.projects"
EDGES = ("rest", "schema", "tasks")
# Every module of the domain, lowest layer first. A module imports from lower layers and its own package only.
LAYERS = [
    ("errors", "models", "notifier", "prices", "rows"),
    ("threads",),
    ("access", "events"),
    ("audit", "cache"),
    ("authentication", "budget", "journal"),
    ("visibility",),
    ("resolvers", "services"),
    ("admin", "apps", "live", "management"),
]
# The modules of the cache, by the same rule.
CACHE_LAYERS = [("redis",), ("versions",), ("responses", "validators"), ("lists",)]


def imports_of(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, anywhere in it."""
    package = list(path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    found = [path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]
    assert found, folder
    return found


def module_files(package: str, name: str) -> list[Path]:
    """The files of a module or package of `package`."""
    folder = package.replace(".", "/")
    module = ROOT / folder / f"{name}.py"
    return [module] if module.exists() else files(f"{folder}/{name}")


def module_names(package: str) -> set[str]:
    """The modules and packages directly below `package`."""
    paths = (ROOT / package.replace(".", "/")).iterdir()
    return {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


class ImportDirectionTests(SimpleTestCase):
    def assert_imports_none_of(self, paths: list[Path], packages: list[str]) -> None:
        wrong = [
            f"{path.relative_to(ROOT)} imports {module}"
            for path in paths
            for module in sorted(imports_of(path))
            if any(is_in(module, package) for package in packages)
        ]
        self.assertEqual(wrong, [])

    def assert_layered(self, package: str, layers: list[tuple[str, ...]]) -> None:
        for position, layer in enumerate(layers):
            not_lower = [name for other in layers[position:] for name in other]
            for name in layer:
                forbidden = [f"{package}.{other}" for other in not_lower if other != name]
                self.assert_imports_none_of(module_files(package, name), forbidden)

    def test_every_module_of_the_domain_has_a_layer(self) -> None:
        named = [name for layer in LAYERS for name in layer]
        self.assertEqual(sorted(named), sorted(module_names(DOMAIN) - {"migrations"}))
        named = [name for layer in CACHE_LAYERS for name in layer]
        self.assertEqual(sorted(named), sorted(module_names(f"{DOMAIN}.cache")))

    def test_a_module_imports_lower_layers_only(self) -> None:
        self.assert_layered(DOMAIN, LAYERS)
        self.assert_layered(f"{DOMAIN}.cache", CACHE_LAYERS)

    def test_the_domain_imports_no_edge_and_no_other_part_of_the_backend(self) -> None:
        around = ["backend.web", "backend.server", "backend.local", "backend.settings", "backend.urls", "backend.asgi"]
        packages = [*EDGES, *around, "rest_framework", "strawberry", "celery"]
        self.assert_imports_none_of(files("backend/projects"), packages)

    def test_no_edge_imports_another(self) -> None:
        for edge in EDGES:
            self.assert_imports_none_of(files(edge), [other for other in EDGES if other != edge])

    def test_middleware_servers_and_the_database_backend_import_no_edge(self) -> None:
        for folder in ("backend/web", "backend/server", "backend/postgresql"):
            self.assert_imports_none_of(files(folder), list(EDGES))

    def test_the_execution_of_graphql_imports_no_consumer_or_view(self) -> None:
        self.assert_imports_none_of(files("schema/execution"), ["schema.consumers", "schema.views"])

    def test_edges_import_no_models_but_enumerations(self) -> None:
        allowed = {"AuditAction", "Role", "Scope", "Status"}  # enumerations, not rows
        for edge in EDGES:
            for path in files(edge):
                for node in ast.walk(ast.parse(path.read_text())):
                    names = {alias.name for alias in getattr(node, "names", [])}
                    if isinstance(node, ast.ImportFrom) and is_in(node.module or "", f"{DOMAIN}.models"):
                        self.assertLessEqual(names, allowed, path)
                    elif isinstance(node, ast.ImportFrom) and node.module == DOMAIN:
                        self.assertNotIn("models", names, path)
                    elif isinstance(node, ast.Import):
                        self.assertFalse(any(is_in(name, f"{DOMAIN}.models") for name in names), path)

    def test_services_read_no_cached_list(self) -> None:
        """A list built in a transaction would cache rows that may still be rolled back."""
        self.assert_imports_none_of(files("backend/projects/services"), [f"{DOMAIN}.cache.lists"])

    def test_the_domain_starts_no_job(self) -> None:
        self.assert_imports_none_of(files("backend/projects"), ["backend.celery"])
