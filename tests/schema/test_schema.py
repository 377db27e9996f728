from difflib import unified_diff
from pathlib import Path

from django.test import SimpleTestCase

import schema
from schema.schema import schema as built

PRINTED = Path(schema.__file__).with_name("schema.graphql")
RENEW = "python manage.py export_schema schema.schema > schema/schema.graphql"


class PrintedSchemaTests(SimpleTestCase):
    maxDiff = None

    def test_the_printed_schema_is_that_of_the_code(self) -> None:
        lines = unified_diff(PRINTED.read_text().splitlines(), str(built).splitlines(), "printed", "code", lineterm="")
        self.assertEqual("\n".join(lines), "", f"\nPrint it anew where this is meant: {RENEW}")
