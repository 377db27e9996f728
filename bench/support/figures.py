"""The results of the benchmarks. `report` prints a figure and collects it for `docs/benchmarks.md`."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from backend.local.console import say

_taken: list[Figure] = []


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. Without a unit it is a ratio; without a goal it is for comparison only.

    The goal is a minimum or, if `is_cost`, a maximum.
    """

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    is_cost: bool = False

    @property
    def is_reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.is_cost else self.value >= self.goal

    @property
    def shown_value(self) -> str:
        return self._shown(self.value)

    @property
    def shown_goal(self) -> str:
        return "" if self.goal is None else f"{self._shown(self.goal)} or {'less' if self.is_cost else 'more'}"

    @property
    def mark(self) -> str:
        return {None: "", True: "reached", False: "falls short"}[self.is_reached]

    def _shown(self, value: float) -> str:
        """Round to the worse side, so that a value that misses its goal never looks equal to it."""
        digits = (0 if value >= 20 else 1) if self.unit else (2 if value >= 1 else 3)
        rounded = (ceil if self.is_cost else floor)(round(value * 10**digits, 6)) / 10**digits
        return f"{rounded:,.{digits}f} {self.unit}".strip()


def report(figure: Figure) -> None:
    goal = f"; goal {figure.shown_goal}: {figure.mark}" if figure.goal is not None else ""
    say(f"{figure.name}: {figure.shown_value}{goal}")
    _taken.append(figure)


def taken() -> list[Figure]:
    """The figures that were reported since the last call."""
    figures = list(_taken)
    _taken.clear()
    return figures
