"""Plots as SVG, by hand: bars and lines, legible on a light and on a dark page.

A plot brings its own background, so that it can be read whatever the page around it looks like; it follows the reader's
system from light to dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 860
_BAR, _GAP, _TOP, _LEFT, _RIGHT = 15, 7, 46, 190, 120
# Told apart also by those who see fewer colours (Okabe and Ito); beside each line stands its name.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
_STYLE = """<style>
 text { font: 12px sans-serif; fill: #24292f } .title { font-weight: bold; font-size: 14px } .faint { fill: #57606a }
 .paper { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 } .bar { fill: #0072b2 } .own { fill: #009e73 }
 .lost { fill: #d55e00 }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9aa4af } .paper { fill: #161b22 } .grid { stroke: #30363d }
  .bar { fill: #56b4e9 } .own { fill: #2fbf93 } .lost { fill: #f08a4b }
 }
</style>"""


def bars(title: str, rows: Sequence[tuple[str, float, float]], *, labels: Mapping[str, str], legend: str = "") -> str:
    """Horizontal bars, on a linear scale from 0.

    Args:
        title: Above.
        rows: Each bar's name, its length, and how much more of it is drawn in the colour of what is lost.
        labels: What to write at a bar's end, by name.
        legend: Below the title.
    """
    longest = max((length + more for _, length, more in rows), default=1) or 1
    scale = (WIDTH - _LEFT - _RIGHT) / longest
    parts = []
    for number, (name, length, more) in enumerate(rows):
        y = _TOP + number * (_BAR + _GAP)
        kind = "own" if name.startswith("temaki") else "bar"
        end = _LEFT + (length + more) * scale
        parts += [
            _text(_LEFT - 8, y + 12, name, anchor="end"),
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length * scale:.1f}" height="{_BAR}"/>',
            f'<rect class="lost" x="{_LEFT + length * scale:.1f}" y="{y}" width="{more * scale:.1f}" height="{_BAR}"/>',
            _text(end + 6, y + 12, labels[name], kind="faint"),
        ]
    return _svg(title, legend, parts, _TOP + len(rows) * (_BAR + _GAP) + 8)


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, log: bool = True) -> str:
    """Lines over a few values of x, each with its name at its end. Logarithmic in y; in x where ``log`` says so."""
    height, right, bottom = 380, 210, 40
    points = [point for line in series.values() for point in line]
    xs = sorted({point[0] for point in points})
    low, high = _decades([point[1] for point in points])

    def across(value: float) -> float:
        share = _share(value, xs[0], xs[-1], log=log)
        return 60 + share * (WIDTH - 60 - right)

    def up(value: float) -> float:
        return height - bottom - _share(value, low, high, log=True) * (height - bottom - _TOP)

    parts = []
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = up(10.0**power)
        parts.append(f'<line class="grid" x1="60" x2="{WIDTH - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(54, at + 4, f"{10.0**power:g}", kind="faint", anchor="end"))
    parts += [_text(across(value), height - bottom + 18, f"{value:g}", kind="faint", anchor="middle") for value in xs]
    parts += [_text((WIDTH - right) / 2, height - 6, x, kind="faint", anchor="middle")]
    ends = _apart({name: up(line[-1][1]) for name, line in series.items()})
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line)
        dash = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
        wide = 3 if name.startswith("temaki") else 1.6
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"{dash}/>')
        parts += [f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
        last = across(line[-1][0])
        parts.append(
            f'<line x1="{last + 5:.1f}" y1="{up(line[-1][1]):.1f}" x2="{WIDTH - right + 18}" y2="{ends[name]:.1f}" '
            f'stroke="{colour}" stroke-width="0.7"/>'
        )
        parts.append(_text(WIDTH - right + 22, ends[name] + 4, name))
    return _svg(title, y, parts, height)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))


def _share(value: float, low: float, high: float, *, log: bool) -> float:
    if log:
        value, low, high = math.log10(value), math.log10(low), math.log10(high)
    return (value - low) / (high - low) if high > low else 0.0


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Places for names that do not overlap, near where they are wanted."""
    found: dict[str, float] = {}
    last = 0.0
    for name, place in sorted(wanted.items(), key=lambda item: item[1]):
        last = found[name] = max(place, last + 15)
    return found


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, legend: str, parts: Sequence[str], height: int) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        _STYLE,
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
        _text(12, 20, title, kind="title"),
        _text(12, 37, legend, kind="faint"),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])
