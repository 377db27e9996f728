"""The direction of imports (docs/architecture.md): edges -> services, resolvers -> access, journal, cache -> models."""

import ast
from pathlib import Path

from django.test import SimpleTestCase

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "backend.projects"
EDGES = ("rest", "schema", "tasks")
# Lower imports nothing of higher.
LAYERS = [
    ("models", "errors", "events", "rows"),
    ("access", "journal", "cache", "notifier", "audit", "authentication"),
    ("services", "resolvers"),
    ("live", "admin", "management"),
]


def imports_of(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, wherever in it."""
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

    def test_the_domain_knows_no_edge(self) -> None:
        self.assert_imports_none_of(files("backend/projects"), [*EDGES, "rest_framework", "strawberry", "celery"])

    def test_no_edge_knows_another(self) -> None:
        for edge in EDGES:
            self.assert_imports_none_of(files(edge), [other for other in EDGES if other != edge])

    def test_only_edges_read_live(self) -> None:
        domain = [path for path in files("backend/projects") if path.name != "live.py"]
        self.assert_imports_none_of(domain, [f"{DOMAIN}.live"])

    def test_no_edge_reaches_past_the_domain_to_the_models(self) -> None:
        allowed = {"AuditAction", "Role", "Scope", "Status"}  # words of the field, not rows
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

    def test_lower_layers_know_no_higher_one(self) -> None:
        for position, layer in enumerate(LAYERS):
            higher = [f"{DOMAIN}.{name}" for above in LAYERS[position + 1 :] for name in above]
            for name in layer:
                module = ROOT / "backend" / "projects" / f"{name}.py"
                paths = [module] if module.exists() else files(f"backend/projects/{name}")
                self.assert_imports_none_of(paths, higher)

    def test_resolvers_write_nothing_and_services_call_no_cached_list(self) -> None:
        self.assert_imports_none_of(files("backend/projects/resolvers"), [f"{DOMAIN}.services"])
        self.assert_imports_none_of(
            files("backend/projects/services"),
            [
                f"{DOMAIN}.resolvers.cached",
                f"{DOMAIN}.cache.lists",
                f"{DOMAIN}.resolvers.project",
                f"{DOMAIN}.resolvers.task",
            ],
        )
