"""Reads the tables of `docs/access.md`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "access.md"
WORDS = {"yes", "own", "all", "hidden", "forbidden", "scope", "sign in", "granted"}
TOKENS = {"read token": "read", "write token": "write", "admin token": "admin"}


@dataclass(frozen=True)
class Row:
    """An action: the expected word for each kind of caller, and the endpoints."""

    action: str
    cells: dict[str, str]
    endpoints: list[str]

    def expected(self, kind: str) -> str:
        """Return the word of the cell; for `scope` with the scope that the response has to name."""
        word = self.cells[kind]
        if word != "scope":
            return word
        sufficient = (scope for token, scope in TOKENS.items() if self.cells[token] != "scope")
        return f"scope {next(sufficient)}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_table() -> list[Row]:
    """Raises AssertionError where a row of the page cannot be tested."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    head, _, *rest = map(_cells, lines)
    assert (head[0], head[-1]) == ("action", "endpoints"), head
    rows = []
    for action, *words, endpoints in rest:
        assert set(words) <= WORDS, (action, words)
        row = Row(action, dict(zip(head[1:-1], words, strict=True)), re.findall(r"`([^`]+)`", endpoints))
        assert row.endpoints, action
        rows.append(row)
    assert len({row.action for row in rows}) == len(rows)
    return rows


def read_open_mode() -> dict[str, str]:
    """Return the words of open mode that differ from those of staff, by action."""
    _, _, section = PAGE.read_text().partition("## Open mode")
    return dict(re.findall(r"^- (.+): `(.+)`$", section, re.MULTILINE))


TABLE = read_table()
KINDS = list(TABLE[0].cells)
OPEN_MODE = read_open_mode()
