import os
from typing import Any

import pytest

from tests.faults.cases import figures


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its figures to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = figures


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    figures.extend(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In the long form, what was measured: shown, not asserted."""
    if "FAULTS" in os.environ:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(figures))
