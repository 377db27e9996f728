"""What the settings refuse before anything starts: each in a process of its own, as at a start."""

import os
import subprocess
import sys

from django.test import SimpleTestCase


class RefusalTests(SimpleTestCase):
    def loaded(self, **environment: str) -> str:
        """What loading the settings raises, in one line; nothing where they load."""
        run = subprocess.run(
            [sys.executable, "-c", "import backend.settings"],
            env={**os.environ, "ENV_FILE": "", "ACCESS": "closed", **environment},
            capture_output=True,
            text=True,
        )
        return "" if run.returncode == 0 else run.stderr.strip().splitlines()[-1]

    def test_what_they_say_is_named(self) -> None:
        for environment, said in (
            ({"ACCESS": "ajar"}, "ACCESS"),
            ({"ACCESS": "open", "BIND": "0.0.0.0"}, "BIND"),
            ({"ACCESS": "open", "BIND": "127.0.0.1", "ALLOWED_HOSTS": "localhost,example.org"}, "ALLOWED_HOSTS"),
            ({"ACCESS": "open", "ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
            ({"SUMMARY_TIME_ZONE": "Europe/Atlantis"}, "SUMMARY_TIME_ZONE"),
            ({"SUMMARY_HOUR": "24"}, "SUMMARY_HOUR"),
        ):
            with self.subTest(environment):
                error = self.loaded(**environment)
                self.assertIn("ImproperlyConfigured", error)
                self.assertIn(said, error)

    def test_open_access_on_this_machine_is_fine(self) -> None:
        self.assertEqual(self.loaded(ACCESS="open", BIND="127.0.0.1", ALLOWED_HOSTS="localhost,127.0.0.1"), "")
