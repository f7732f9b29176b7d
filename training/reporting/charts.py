"""Curves of stats.jsonl as SVG for a run's page, drawn in about a millisecond."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]  # (step, value), finite

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 200, 52, 12, 10, 26
LETTER, LINE = 7, 14  # width of a letter and height of a line in pixels; style.css makes text 13 pixels high
DASHES = ("none", "7 3", "2 3", "9 3 2 3")  # so that curves differ in more than their colour
MOST = 240  # points of a curve; more are averaged, since they would fall on the same pixels
TICKS = 4


class Chart(NamedTuple):
    """A chart: title, SVG drawing, and a caption with the last values."""

    title: str
    svg: Markup
    caption: str


def thinned(points: Points) -> Points:
    """Reduce points to at most MOST by averaging groups of neighbours; the last point is kept."""
    size = -(-len(points) // MOST)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means[:-1], points[-1]]


def short(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, in its shortest form."""
    if 0 < abs(value) < 1e-3:
        exponent = math.floor(math.log10(abs(value)))
        return f"{value / 10**exponent:.{digits}g}e{exponent}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def told_apart(values: Sequence[float]) -> list[str]:
    """Format numbers with the fewest digits, at least three, that make all texts different."""
    every = ([short(value, digits) for value in values] for digits in range(3, 8))
    return next((texts for texts in every if len({*texts}) == len(texts)), [*map(short, values)])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between low and high."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers from 10**low to 10**high: even steps, 1 and 3 of each decade, or powers of ten."""
    if high - low < 1:
        return [math.log10(value) for value in ticks(10**low, 10**high)]
    if high - low < 2:
        every = [decade + digit for decade in range(math.floor(low), math.ceil(high)) for digit in (0, math.log10(3))]
        return [value for value in every if low <= value <= high]
    return list(range(math.ceil(low), math.floor(high) + 1, math.ceil((high - low) / TICKS)))


def chart(title: str, series: Mapping[str, Points], log: bool = False) -> Chart | None:
    """Draw curves over steps, on a logarithmic axis if `log` and all values are positive. None without points."""
    found = {name: thinned(points) for name, points in series.items() if points}
    if not found:
        return None
    values = [y for points in found.values() for _, y in points]
    log = log and min(values) > 0
    change = math.log10 if log else float
    low, high = change(min(values)), change(max(values))
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1  # so that curves do not touch the ends of the axis
    low, high = low - margin, high + margin
    last = max(x for points in found.values() for x, _ in points) or 1
    right = WIDTH - RIGHT - (LETTER * max(map(len, found)) if len(found) > 1 else 0)  # names at the ends of curves

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x / last, (y - low) / (high - low)
        return LEFT + across * (right - LEFT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    ends = ", ".join(f"{name} {short(points[-1][1])}" for name, points in series.items() if points)
    caption = f"At step {last:,.0f}: {ends}" + (" (logarithmic axis)" if log else "")
    parts = []
    values = (log_ticks if log else ticks)(low, high)
    for value, shown in zip(values, told_apart([10**value if log else value for value in values])):
        _, y = place(0, value)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    for step, anchor in {last // 2: "middle", 0: "start", last: "end"}.items():
        x, _ = place(step, low)
        words = f"{'step ' * (not step)}{step:,.0f}"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{words}</text>')
    heights, above = {}, -math.inf  # of the names, from the highest curve to the lowest, at least LINE apart
    for below, name in reversed([*enumerate(sorted(found, key=lambda name: found[name][-1][1]))]):
        _, y = place(0, change(found[name][-1][1]))
        heights[name] = above = max(min(y, HEIGHT - BOTTOM - LINE * below), above + LINE)
    for number, (name, points) in enumerate(found.items()):
        colour = f"var(--c{number % 4})"
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, change(y)) for x, y in points))
        parts.append(f'<path stroke="{colour}" stroke-dasharray="{DASHES[number % 4]}" d="M{line}"/>')
        a, b = line.rsplit(" ", 1)[-1].split(",")
        parts.append(f'<circle cx="{a}" cy="{b}" r="2.5" style="fill: {colour}"/>')
        if len(found) > 1:
            at = f'x="{right + 6}" y="{heights[name] + 4:.1f}"'
            parts.append(f'<text {at} style="fill: {colour}">{escape(name)}</text>')
    said = escape(f"{title}. {caption}")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{"".join(parts)}</svg>'
    return Chart(title, Markup(drawing), caption)
