import getpass
import socket
import tempfile
from pathlib import Path
from unittest import mock

from django.test import TestCase

from bench.support import page
from bench.support.figures import Figure


class PageTests(TestCase):
    def write_page(self, *figures: Figure) -> str:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(page, "PAGE", Path(folder, "page.md")):
            page.write({"lists": ("What lists cost.", list(figures))})
            return page.PAGE.read_text()

    def test_the_page_marks_missed_goals_and_counts_the_reached_ones(self) -> None:
        text = self.write_page(Figure("slow", 0.5, goal=0.8), Figure("fast", 3, goal=2), Figure("memory", 55, "KB"))
        self.assertIn("\n## lists\n\nWhat lists cost.\n", text)
        self.assertIn("\n| slow | 0.500 | 0.800 or more | **falls short** |\n", text)
        self.assertIn("\n| fast | 3.00 | 2.00 or more | reached |\n", text)
        self.assertIn("\n| memory | 55 KB |  |  |\n", text)
        self.assertIn("\n1 of 2 goals are reached.\n", text)

    def test_the_page_describes_the_machine_but_does_not_identify_it(self) -> None:
        text = self.write_page()
        for name in ("date", "processor", "memory", "Python", "PostgreSQL", "Redis", "Django", "daphne"):
            self.assertRegex(text, rf"\n\| {name} \| [^|]+ \|\n")
        words = text.replace("|", " ").split()
        for secret in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())):
            self.assertNotIn(secret, words)
