"""Small charts as inline SVG: text stays text, in any script, and nothing needs to be installed.

Colours are left to the page's CSS, by class: ``grid``, ``axis``, ``ideal``, ``mark``, ``band``, and
``s0``, ``s1``, ... for the lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 44
#: Pixels between the two lines below a tick, and of a letter at most.
NOTE, LETTER = 14, 7
#: About so many labels stand along an axis.
TICKS = 5
#: Pixels of a matrix, of the smallest and largest cell in it, and of its margin for names.
MATRIX, CELLS, MARGIN = 360, (15, 36), 34

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """What one line of a chart shows.

    :param name: for the legend
    :param points: x and y, in the order of x
    :param sizes: the radius of a dot at each point; without it there are no dots
    :param band: what lies around the line: x, and from where to where
    """

    name: str
    points: Sequence[Point]
    sizes: Sequence[float] = ()
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis is called and where it begins and ends.

    :param note: what stands below a tick's number, if it is an x axis
    """

    name: str
    low: float
    high: float
    note: Callable[[float], str] | None = None

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value is between two pixels."""
        share = (value - self.low) / (self.high - self.low)
        return round(start + share * (end - start), 1)

    def ticks(self) -> list[float]:
        """Round values within it: 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step for m in (1, 2, 5, 10) if (step := m * power) >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Mark:
    """A line across the chart where something happened.

    :param at: where on the x axis
    :param name: short; left out where there is no room for it
    :param title: what it says in full
    """

    at: float
    name: str
    title: str


def around(name: str, values: Sequence[float], floor: float | None = None) -> Axis:
    """An axis that holds some values.

    :param name: what it is called
    :param values: what has to fit; infinite ones and those that are no number do not count
    :param floor: where it begins, whatever the values
    """
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0) if floor is None else floor
    high = max(finite, default=1.0)
    return Axis(name, low, high if high > low else low + 1.0)


def chart(
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    diagonal: bool = False,
    marks: Sequence[Mark] = (),
    width: int = WIDTH,
) -> str:
    """Lines over an x axis.

    :param x: the axis below
    :param y: the axis at the left; what lies outside is cut off
    :param series: the lines, named in a legend if there are several
    :param diagonal: whether a line shows where both axes agree
    :param marks: lines across it, in the order of x
    :param width: of the picture, in pixels
    """
    height = HEIGHT + (NOTE if x.note else 0)
    left, right, top, bottom = LEFT, width - RIGHT, TOP, HEIGHT - BOTTOM
    parts = []
    for value in x.ticks():
        at = x.place(value, left, right)
        parts.append(f'<line class="grid" x1="{at}" y1="{top}" x2="{at}" y2="{bottom}"/>')
        parts.append(_text(at, bottom + 16, f"{value:g}", "middle"))
        if x.note:
            parts.append(_text(at, bottom + 16 + NOTE, x.note(value), "middle"))
    for value in y.ticks():
        at = y.place(value, bottom, top)
        parts.append(f'<line class="grid" x1="{left}" y1="{at}" x2="{right}" y2="{at}"/>')
        parts.append(_text(left - 6, at + 4, f"{value:g}", "end"))
    parts.append(f'<path class="axis" d="M{left},{top}V{bottom}H{right}"/>')
    parts.append(_text((left + right) / 2, height - 8, x.name, "middle"))
    middle = (top + bottom) / 2
    parts.append(
        f'<text transform="rotate(-90)" x="{-middle}" y="12" text-anchor="middle">'
        f"{escape(y.name)}</text>"
    )
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        ends = [(x.place(value, left, right), y.place(value, bottom, top)) for value in (low, high)]
        parts.append(f'<path class="ideal" d="{_path(ends)}"/>')
    parts += _marks(marks, x, (left, right), (top, bottom))
    for number, line in enumerate(series):
        if line.band:
            around_it = [(a, b) for a, b, _ in line.band]
            around_it += [(a, b) for a, _, b in reversed(line.band)]
            ring = [(x.place(a, left, right), y.place(b, bottom, top)) for a, b in around_it]
            parts.append(f'<path class="band" d="{_path(ring)}Z"/>')
        parts += _line(
            line,
            number,
            [
                (x.place(a, left, right), y.place(max(y.low, min(y.high, b)), bottom, top))
                for a, b in line.points
                if math.isfinite(b)
            ],
        )
    return _svg(width, height, parts, f"{y.name} over {x.name}") + (
        _legend(series) if len(series) > 1 else ""
    )


def _marks(
    marks: Sequence[Mark], x: Axis, across: tuple[int, int], down: tuple[int, int]
) -> list[str]:
    parts = []
    free = -math.inf
    for mark in marks:
        at = x.place(mark.at, *across)
        parts.append(
            f'<g class="mark"><title>{escape(mark.title)}</title>'
            f'<path d="M{at},{down[0]}V{down[1]}"/>'
        )
        if at >= free:
            parts.append(_text(at + 4, down[1] - 6, mark.name, "start"))
            free = at + 12 + LETTER * len(mark.name)
        parts.append("</g>")
    return parts


def _line(line: Series, number: int, places: Sequence[Point]) -> list[str]:
    parts = [f'<path class="s{number}" d="{_path(places)}"/>'] if places else []
    sizes = line.sizes or ([3.0] if len(places) == 1 else [])
    parts += [
        f'<circle class="s{number}" cx="{a}" cy="{b}" r="{size:.1f}"/>'
        for (a, b), size in zip(places, sizes, strict=False)
    ]
    return parts


def _legend(series: Sequence[Series]) -> str:
    names = (f'<span><i class="s{i}"></i>{escape(s.name)}</span>' for i, s in enumerate(series))
    return f'<p class="legend">{"".join(names)}</p>'


def matrix(names: str, counts: Mapping[tuple[str, str], int]) -> str:
    """Which character was taken for which, darker the more often; the diagonal is left out.

    :param names: the characters, one a row (the true one) and one a column (what was read)
    :param counts: how often, by (true, read)
    """
    cell = max(CELLS[0], min(CELLS[1], MATRIX // max(1, len(names))))
    place = {name: MARGIN + i * cell for i, name in enumerate(names)}
    end = MARGIN + len(names) * cell
    most = max((n for (true, read), n in counts.items() if true != read), default=1)
    parts = []
    for name, at in place.items():
        middle = at + cell / 2
        parts.append(_text(middle, MARGIN - 5, name, "middle"))
        parts.append(_text(MARGIN - 7, middle + 4, name, "end"))
        parts.append(
            f'<rect class="same" x="{at}" y="{at}" width="{cell}" height="{cell}"/>'
            f'<path class="grid" d="M{MARGIN},{at}H{end}M{at},{MARGIN}V{end}"/>'
        )
    for (true, read), n in sorted(counts.items()):
        if true == read or true not in place or read not in place:
            continue
        opacity = 0.25 + 0.75 * n / most
        parts.append(
            f'<rect class="cell" x="{place[read]}" y="{place[true]}" width="{cell}" '
            f'height="{cell}" fill-opacity="{opacity:.2f}">'
            f"<title>{escape(true)} read as {escape(read)}: {n}</title></rect>"
        )
    return _svg(end + 2, end + 2, parts, "true characters down, characters read across")


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{a},{b}" for a, b in places)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
