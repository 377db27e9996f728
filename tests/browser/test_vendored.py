"""The vendored files are unchanged since they were fetched."""

from hashlib import sha256

from django.conf import settings
from django.test import SimpleTestCase

VENDOR = settings.BASE_DIR / "frontend" / "graphiql" / "vendor"


class VendoredFilesTests(SimpleTestCase):
    def test_every_vendored_file_has_its_recorded_hash(self) -> None:
        recorded = {}
        for line in (VENDOR / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split()
            recorded[name] = digest

        present = {
            path.name: sha256(path.read_bytes()).hexdigest()
            for path in VENDOR.iterdir()
            if path.name not in {"README.md", "SHA256SUMS"}
        }
        self.assertEqual(present, recorded)
