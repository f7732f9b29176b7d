"""Curves as SVG, drawn from numbers in a millisecond: what a page shows of stats.jsonl."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]  # (step, value), finite

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 230, 52, 10, 40, 24
MOST = 240  # points of a curve; more are averaged, as they would fall on the same pixels
TICKS = 4


class Chart(NamedTuple):
    """A drawing, and a sentence with the last values."""

    svg: Markup
    caption: str


def thinned(points: Points) -> Points:
    """At most MOST points: means of equally many neighbours."""
    size = -(-len(points) // MOST)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def short(value: float) -> str:
    """Three digits, as short as they can be."""
    if 0 < abs(value) < 1e-3:
        exponent = math.floor(math.log10(abs(value)))
        return f"{value / 10**exponent:.3g}e{exponent}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between low and high."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def chart(title: str, series: Mapping[str, Points], log: bool = False) -> Chart | None:
    """A panel of curves over steps, with a logarithmic axis where that is wanted and can be; None without points."""
    found = {name: thinned(points) for name, points in series.items() if points}
    if not found:
        return None
    values = [y for points in found.values() for _, y in points]
    log = log and min(values) > 0
    change = math.log10 if log else float
    low, high = change(min(values)), change(max(values))
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1  # so that curves can be seen apart from the ends of the axis
    low, high = low - margin, high + margin
    last = max(x for points in found.values() for x, _ in points) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x / last, (y - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    ends = ", ".join(f"{name} {short(points[-1][1])}" for name, points in series.items() if points)
    caption = f"{title} at step {last:,.0f}: {ends}" + (" (logarithmic axis)" if log else "")
    parts = [f'<text x="4" y="14" font-weight="600">{escape(title)}</text>']
    for value in ticks(low, high):
        _, y = place(0, value)
        shown = short(10**value if log else value)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x, _ = place(share * last, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{share * last:,.0f}</text>')
    left = itertools.accumulate((20 + 7 * len(name) for name in found), initial=4)
    for number, ((name, points), x) in enumerate(zip(found.items(), left)):
        colour = f"var(--c{number % 4})"
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, change(y)) for x, y in points))
        parts.append(f'<path stroke="{colour}" d="M{line}"/>')
        a, b = line.rsplit(" ", 1)[-1].split(",")
        parts.append(f'<circle cx="{a}" cy="{b}" r="2.5" style="fill: {colour}"/>')
        parts.append(f'<path stroke="{colour}" d="M{x},26 h10"/><text x="{x + 13}" y="30">{escape(name)}</text>')
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}">{"".join(parts)}</svg>'
    return Chart(Markup(drawing), caption)
