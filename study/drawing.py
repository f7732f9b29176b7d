"""What the figures of a study have in common: panels, colours, bands over seeds, and how numbers are written."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from utils.plots import pyplot

from .grid import Study
from .methods import METHODS, SETTINGS
from .results import Result

WIDTH = 7.4  # inches: so narrow that a telephone, too, shows the text
HERO = "spectral"
PALETTE = ("tab:grey", "tab:blue", "tab:cyan", "tab:green", "tab:brown", "tab:purple", "tab:pink", "tab:olive")
LATER = ("navy", "royalblue", "deepskyblue", "salmon", "indigo", "darkgreen", "sienna")
COLOURS = dict(zip(METHODS, (*PALETTE, "goldenrod", "crimson", "darkorange", *LATER), strict=True))


class Figure(NamedTuple):
    """A drawn figure: its file's name, its heading, matplotlib's figure, and what to see in it."""

    name: str
    title: str
    drawn: Any
    sentence: str


def save_figure(figure: Figure, folder: str | Path) -> Path:
    """Save a Figure into a folder as PNG, and close it. Returns the path."""
    path = Path(folder) / f"{figure.name}.png"
    figure.drawn.savefig(path, dpi=130)
    pyplot().close(figure.drawn)
    return path


def shown_setting(study: Study) -> str:
    """The setting of figures that can show only one: C, which the paper takes for its CNN, or a study's first one."""
    return "C" if study.table is SETTINGS and "C" in study.settings else study.settings[0]


# ---- Words ---------------------------------------------------------------------------------------------------------


def name_of(method: str) -> str:
    return METHODS[method].label


def names_of(methods: Sequence[str]) -> str:
    """One method's name, or how many they are."""
    return name_of(methods[0]) if len(methods) == 1 else f"{len(methods)} methods alike"


def number(value: float) -> str:
    """Three significant digits, all of those before the point up to a million."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def extremes(values: dict[str, float], most: str, least: str, show: Callable[[float], str] = number) -> str:
    """Who has the most and the least of {method: value}, and spectral norm where it is between them, in words."""
    high, low = max(values.values()), min(values.values())
    if high == low:
        return f"{show(high)} for " + ("every method" if len(values) > 1 else name_of(next(iter(values))))
    ends = [[method for method, value in values.items() if value == end] for end in (high, low)]
    text = f"{most} {names_of(ends[0])} ({show(high)}), {least} {names_of(ends[1])} ({show(low)})"
    told = [methods[0] for methods in ends if len(methods) == 1]
    return text + (f"; {name_of(HERO)} {show(values[HERO])}" if HERO in values and HERO not in told else "")


# ---- Axes ----------------------------------------------------------------------------------------------------------


def panels(
    count: int, columns: int, height: float, over_training: bool = False, methods: Sequence[str] = (), **options: Any
) -> tuple[Any, list[Axes]]:
    """A figure with so many panels, and these; the axes that are not needed are removed.

    over_training: x is the step. methods: those of the legend, where there is one.
    """
    rows = -(-max(1, count) // columns)
    size = (WIDTH, height * rows + 0.5)
    figure, axes = pyplot().subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[count:]:
        axis.remove()
    for axis in axes.flat[max(0, count - columns) : count]:  # the lowest of each column, where it ends early too
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[-1] if over_training else ():
        axis.set_xlabel("step (updates of G)", fontsize=10)
    for axis in axes.flat[:count]:
        axis.grid(alpha=0.3)
    if methods:
        legend(figure, [COLOURS[method] for method in methods], map(name_of, methods))
    return figure, list(axes.flat[:count])


def name_rows(axis: Axes, methods: Sequence[str]) -> None:
    """Methods as the rows of a panel, from the top."""
    axis.set_yticks(range(len(methods)), list(map(name_of, methods)))
    axis.invert_yaxis()
    for label, method in zip(axis.get_yticklabels(), methods):
        label.set_fontweight("bold" if method == HERO else "normal")


def legend(figure: Any, colours: Iterable[Any], labels: Iterable[str], columns: int = 4) -> None:
    """A legend below the panels."""
    handles = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.5, columnspacing=1.2
    )


def plain_ticks(axis: Any) -> None:
    """Numbers such as 30 and 100 on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter("")


def width_of(method: str) -> float:
    """Of a method's line."""
    return 2.8 if method == HERO else 1.3


# ---- Lines over training -------------------------------------------------------------------------------------------


Values = Callable[[Result], dict[int, float]]  # of a result, by step


def series(results: Iterable[Result], values: Values) -> tuple[np.ndarray, np.ndarray]:
    """The steps that all of these have a value at, and the values (results, steps). values(result): {step: value}."""
    found = [line for line in map(values, results) if line]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return np.array(steps), np.array([[line[step] for step in steps] for line in found]).reshape(len(found), len(steps))


def band(
    axis: Axes, results: Sequence[Result], values: Values, colour: Any, width: float = 1.5, geometric: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mean over the finished runs and a band from the lowest to the highest; the others as dotted lines.

    geometric: the geometric mean, of values above 0. Returns the series() of the finished ones.
    """
    steps, found = series([result for result in results if result.finished], values)
    if len(steps):
        mean = np.exp(np.log(np.maximum(found, 1e-12)).mean(axis=0)) if geometric else found.mean(axis=0)
        axis.plot(steps, mean, color=colour, linewidth=width)
        axis.fill_between(steps, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.18, linewidth=0)
    for result in results:
        if not result.finished and (line := values(result)):
            axis.plot(*zip(*sorted(line.items())), color=colour, linewidth=1, linestyle=":")
    return steps, found
