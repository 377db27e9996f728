"""The log: a warning or an error that repeats is written once a minute, and counted."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from django.conf import settings
from django.test import SimpleTestCase

from backend.web.log import CountingHandler


def fail() -> None:
    raise ConnectionError("refused")


def fail_elsewhere() -> None:
    raise ConnectionError("refused")


class CountingHandlerTests(SimpleTestCase):
    def setUp(self) -> None:
        self.stream = StringIO()
        self.handler = CountingHandler(self.stream)
        self.handler.setFormatter(logging.Formatter(settings.LOGGING["formatters"]["line"]["format"]))
        self.addCleanup(self.handler.close)

    def log(
        self, message: Any, *args: object, name: str = "live", level: int = logging.ERROR, failing: Any = None
    ) -> None:
        error = None
        if failing is not None:
            try:
                failing()
            except ConnectionError:
                error = sys.exc_info()
        self.handler.handle(logging.LogRecord(name, level, "", 0, message, args, error))

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def test_the_first_of_a_kind_is_written_in_full_and_the_others_are_counted(self) -> None:
        for number in range(1235):
            self.log("Request %s failed.", number, failing=fail)
        first, traceback, *_, last = self.lines()
        self.assertEqual(first, "ERROR live: Request 0 failed.")
        self.assertEqual(traceback, "Traceback (most recent call last):")
        self.assertEqual(last, "ConnectionError: refused")
        written = len(self.lines())

        self.handler.close()

        self.assertEqual(self.lines()[written:], ["ERROR live: Request 0 failed. ... repeated 1,234 times in 0 s"])

    def test_kinds_differ_in_logger_message_and_place_of_the_exception(self) -> None:
        kinds: list[dict[str, Any]] = [
            {"message": "No."},
            {"message": "Oh."},
            {"message": "No.", "name": "cache"},
            {"message": "No.", "failing": fail},
            {"message": "No.", "failing": fail_elsewhere},
        ]
        for kind in kinds * 2:
            self.log(**kind)
        self.handler.close()
        self.assertEqual(len([line for line in self.lines() if line.startswith("ERROR ")]), 2 * len(kinds))
        self.assertEqual(len([line for line in self.lines() if line.endswith(" ... repeated once in 0 s")]), len(kinds))

    def test_information_is_not_counted(self) -> None:
        for _ in range(3):
            self.log("Sent.", level=logging.INFO)
        self.assertEqual(self.lines(), ["INFO live: Sent."] * 3)

    def test_the_count_is_written_after_the_period_without_a_further_record(self) -> None:
        self.handler.period_s = 0.1
        for _ in range(3):
            self.log("No.")
        timer = self.handler._timer
        assert timer is not None
        timer.join()
        self.assertEqual(self.lines(), ["ERROR live: No.", "ERROR live: No. ... repeated 2 times in 0 s"])
        self.log("No.")
        self.assertEqual(self.lines()[2:], ["ERROR live: No."])
        self.assertIsNone(self.handler._timer)

    def test_the_next_record_after_the_period_follows_the_count(self) -> None:
        for _ in range(3):
            self.log("No.")
        self.handler.period_s = 0
        self.log("Oh.", level=logging.WARNING)
        self.assertEqual(self.lines()[1:], ["ERROR live: No. ... repeated 2 times in 0 s", "WARNING live: Oh."])

    def test_kinds_are_bounded(self) -> None:
        """Some libraries log texts that are formatted already, which a client may vary."""
        for number in range(self.handler.max_kinds + 1000):
            self.log(f"No {number}.")
            self.log(f"No {number}.", name="cache")
        self.assertEqual(len(self.handler._kinds), self.handler.max_kinds + 2)
        self.assertEqual(len(self.lines()), self.handler.max_kinds + 2)
        self.handler.close()
        counted = [line for line in self.lines() if "repeated" in line]
        self.assertEqual([line.split()[-5] for line in counted], ["1,149", "1,149"])

    def test_a_multi_line_message_is_one_line_in_the_count(self) -> None:
        for address in (1, 2):
            self.log(f"Task exception was never retrieved\nfuture: {address}")
        self.handler.close()
        self.assertEqual(self.lines()[2:], ["ERROR live: Task exception was never retrieved ... repeated once in 0 s"])

    def test_a_message_whose_arguments_do_not_fit_is_no_error(self) -> None:
        with redirect_stderr(StringIO()) as report:
            self.log("%d", "x")
        self.assertIn("--- Logging error ---", report.getvalue())

    def test_a_fork_does_not_write_the_counts_of_its_parent(self) -> None:
        for _ in range(3):
            self.log("No.")
        process = os.fork()
        if process == 0:
            self.log("No.")
            self.handler.close()
            os._exit(self.lines() != ["ERROR live: No."] * 2)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 0)

    def test_every_process_has_it(self) -> None:
        self.assertEqual(
            [type(handler) for handler in logging.getLogger().handlers if type(handler) is CountingHandler],
            [CountingHandler],
        )
