import os

import pytest

from tests.faults.cases import figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In the long form, what was measured: shown, not asserted."""
    if "FAULTS" in os.environ:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(figures))
