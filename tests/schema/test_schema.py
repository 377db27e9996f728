from difflib import unified_diff
from pathlib import Path

from django.test import SimpleTestCase

import schema
from schema.schema import schema as built

PRINTED = Path(schema.__file__).with_name("schema.graphql")
UPDATE = "python manage.py export_schema schema.schema > schema/schema.graphql"


class PrintedSchemaTests(SimpleTestCase):
    maxDiff = None

    def test_the_printed_schema_matches_the_code(self) -> None:
        lines = unified_diff(PRINTED.read_text().splitlines(), str(built).splitlines(), "printed", "code", lineterm="")
        self.assertEqual("\n".join(lines), "", f"\nIf the change is intended: {UPDATE}")
