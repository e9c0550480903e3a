"""Charts as inline SVG: they take the page's colours, so that light, dark and print all work.

Every text that goes into one is escaped by `Markup.format`. Sizes are in units of the view box;
the page scales it to the width that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 34, 50
COLOURS = 7
"""How many colours the page's style has: classes c0 to c6."""

_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>')
_RULE = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
_RECT = Markup(
    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"><title>{}</title></rect>'
)
_SHAPE = Markup('<path d="{}" class="{}"><title>{}</title></path>')
_CHART = Markup(
    '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>'
)


@dataclass(frozen=True)
class Bar:
    """A stack of parts, each a value and the index of its colour; `mark` is what was planned."""

    label: str
    parts: tuple[tuple[str, float, int], ...]
    mark: float | None = None

    @property
    def top(self) -> float:
        """Where it ends."""
        return max(sum(value for _, value, _ in self.parts), self.mark or 0)


@dataclass(frozen=True)
class Line:
    """Points in order. `hollow` lines are dashed and their marks empty."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    hollow: bool = False


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis with a name, such as a thermal state; `level` sets its shade."""

    start: float
    end: float
    name: str
    level: int


def bar_chart(title: str, unit: str, bars: Sequence[Bar], top: float) -> Markup:
    """Stacked bars beside each other up to `top`, what was planned as a line across each."""
    axis = _Axis.covering(0, top)
    parts = [*_grid(axis, unit)]
    step = (WIDTH - _LEFT - _RIGHT) / max(len(bars), 1)
    for place, bar in enumerate(bars):
        left, width = _LEFT + step * (place + 0.15), step * 0.7
        below = 0.0
        for name, value, colour in bar.parts:
            top, bottom = axis.y(below + value), axis.y(below)
            hint = f"{bar.label}, {name}: {value:.4g} {unit}"
            parts.append(_RECT.format(left, top, width, bottom - top, f"c{colour}", hint))
            below += value
        if bar.mark is not None:
            y = axis.y(bar.mark)
            parts.append(_RULE.format(left - 4, y, left + width + 4, y, "mark"))
        middle = left + width / 2
        parts.append(_TEXT.format(middle, HEIGHT - _BOTTOM + 20, "label", "middle", bar.label))
    return _chart(title, parts)


def line_chart(
    title: str,
    axes: tuple[str, str],
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    crosses: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Lines over x, `axes` naming x and y; `crosses` are places on x where something failed."""
    xs = [x for line in lines for x, _ in line.points] + [x for x, _ in crosses]
    xs += [edge for band in bands for edge in (band.start, band.end)]
    ys = [y for line in lines for _, y in line.points]
    across, up = (
        _Axis.covering(min(xs, default=0), max(xs, default=1)),
        _Axis.covering(0, max(ys, default=1)),
    )
    parts = [*_bands(across, bands), *_grid(up, axes[1]), *_x_labels(across, axes[0])]
    for line in lines:
        style = f"c{line.colour}{' hollow' if line.hollow else ''}"
        places = [(across.x(x), up.y(y)) for x, y in line.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(_SHAPE.format(path, f"{style} line", line.name))
        for (x, y), (at, value) in zip(places, line.points):
            hint = f"{line.name}: {value:.4g} at {at:g}"
            dot = f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"
            parts.append(_SHAPE.format(dot, f"{style} dot", hint))
    for at, why in crosses:
        x, y = across.x(at), HEIGHT - _BOTTOM - 8
        cross = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
        parts.append(_SHAPE.format(cross, "cross", why))
    return _chart(title, parts)


def spread_chart(title: str, rows: Sequence[tuple[str, float]], goal: float) -> Markup:
    """One dot a row, in percent around 0, between lines at plus and minus `goal` percent."""
    furthest = max([goal, *(abs(value) for _, value in rows)])
    reach = _Axis.covering(0, furthest).end
    height = 26 * len(rows) + _BOTTOM
    left, right = 270, WIDTH - 34

    def place(value: float) -> float:
        return left + (right - left) * (value + reach) / (2 * reach)

    parts = []
    for value, style in ((-goal, "goal"), (0, "axis"), (goal, "goal")):
        parts.append(_RULE.format(place(value), 4, place(value), height - _BOTTOM + 4, style))
    # Beside far outliers the goal's own labels would lie on that of 0.
    near = (-goal, goal) if goal > 0.15 * reach else ()
    for value in (-reach, 0.0, reach, *near):
        label = f"{value:+g}%" if value else "0%"
        parts.append(_TEXT.format(place(value), height - _BOTTOM + 20, "tick", "middle", label))
    for index, (name, value) in enumerate(rows):
        x, y = place(value), 26 * index + 16
        parts.append(_TEXT.format(left - 10, y + 4, "row", "end", name))
        dot = f"M{x - 5:.1f} {y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"
        style = "c0" if abs(value) <= goal else "c1"
        parts.append(_SHAPE.format(dot, f"{style} dot", f"{name}: {value:+.2f}%"))
    return _chart(title, parts, height)


@dataclass(frozen=True)
class _Axis:
    """From `start` to `end` in round steps."""

    start: float
    end: float
    step: float

    @classmethod
    def covering(cls, low: float, high: float) -> _Axis:
        """About five steps of 1, 2 or 5 times a power of ten."""
        span = high - low or abs(high) or 1.0
        power = 10.0 ** floor(log10(span / 5))
        step = next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= 6)
        start = floor(low / step) * step
        # One round value alone needs a step, too.
        return cls(start, max(ceil(high / step) * step, start + step), step)

    @property
    def ticks(self) -> Iterator[float]:
        for count in range(round((self.end - self.start) / self.step) + 1):
            yield self.start + count * self.step

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * self._share(value)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * self._share(value)

    def _share(self, value: float) -> float:
        return (value - self.start) / (self.end - self.start)


def _grid(axis: _Axis, unit: str) -> Iterator[Markup]:
    for tick in axis.ticks:
        y = axis.y(tick)
        yield _RULE.format(_LEFT, y, WIDTH - _RIGHT, y, "axis" if tick == axis.start else "grid")
        yield _TEXT.format(_LEFT - 6, y + 4, "tick", "end", f"{tick:g}")
    yield _TEXT.format(2, 16, "tick", "start", unit)


def _x_labels(axis: _Axis, name: str) -> Iterator[Markup]:
    for tick in axis.ticks:
        yield _TEXT.format(axis.x(tick), HEIGHT - _BOTTOM + 20, "tick", "middle", f"{tick:g}")
    yield _TEXT.format((WIDTH + _LEFT) / 2, HEIGHT - 8, "tick", "middle", name)


def _bands(axis: _Axis, bands: Sequence[Band]) -> Iterator[Markup]:
    for band in bands:
        left, right = axis.x(band.start), axis.x(band.end)
        height = HEIGHT - _TOP - _BOTTOM
        yield _RECT.format(left, _TOP, right - left, height, f"heat heat{band.level}", band.name)
        yield _TEXT.format((left + right) / 2, _TOP + 14, "tick", "middle", band.name)


def _chart(title: str, parts: Sequence[Markup], height: int = HEIGHT) -> Markup:
    return _CHART.format(WIDTH, height, title, Markup("").join(parts))
