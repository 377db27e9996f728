"""Curves over time, as lines of text and as an SVG picture, without a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

BARS = "▁▂▃▄▅▆▇█"
COLORS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 420, 70, 140, 50, 50
TICKS = 5

# Seconds since the start, and a value.
Curve = Sequence[tuple[float, float]]


def as_text(curve: Curve, columns: int = 60) -> str:
    """The curve as bars from 0 to its highest value."""
    values = [value for _, value in curve]
    highest = max(values, default=0) or 1
    chosen = [values[n * len(values) // columns] for n in range(columns)] if len(values) > columns else values
    return "".join(BARS[min(len(BARS) - 1, int(value / highest * len(BARS)))] for value in chosen)


def as_svg(title: str, unit: str, curves: Mapping[str, Curve], marks: Mapping[str, float]) -> str:
    """A picture of the curves. `marks` are moments, in seconds, that it shows as vertical lines."""
    end = max((curve[-1][0] for curve in curves.values() if curve), default=0) or 1
    highest = 1.1 * max((value for curve in curves.values() for _, value in curve), default=0) or 1

    def x(seconds: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * seconds / end, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / highest, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        '     font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="25" font-size="15">{escape(title)}</text>',
    ]
    for tick in range(TICKS + 1):
        value, seconds = highest * tick / TICKS, end * tick / TICKS
        parts += [
            f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value:,.0f} {escape(unit)}</text>',
            f'<text x="{x(seconds)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{_minutes(seconds)}</text>',
        ]
    for name, seconds in marks.items():
        parts += [
            f'<path d="M{x(seconds)} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="4"/>',
            f'<text x="{x(seconds) + 4}" y="{TOP + 10}" fill="#555">{escape(name)}</text>',
        ]
    for number, (name, curve) in enumerate(curves.items()):
        if not curve:
            continue
        color = COLORS[number % len(COLORS)]
        points = " ".join(f"{x(seconds)},{y(value)}" for seconds, value in curve)
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{y(curve[-1][1]) + 4}" fill="{color}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
