"""Parts of a study's figures: panels, lines over training, pictures, tables, colours, numbers."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np

from utils.plots import DASHES, pyplot

from .grid import Study
from .methods import METHODS, SETTINGS
from .results import Interval, Result

WIDTH = 7.4  # inches, so that text stays readable on a phone
HERO = "spectral"
PALETTE = ("tab:grey", "tab:blue", "tab:cyan", "tab:green", "tab:brown", "tab:purple", "tab:pink", "tab:olive")
LATER = ("navy", "royalblue", "deepskyblue", "salmon", "indigo", "darkgreen", "plum", "teal", "olivedrab", "sienna")
EVERY = itertools.chain(PALETTE, ("goldenrod", "crimson", "darkorange"), LATER, itertools.repeat("black"))
COLOURS = dict(zip(METHODS, EVERY))  # a user's own methods are black
MARKERS = "os^DvX"  # at the ends of lines: no two methods share both marker and dashes

Values = str | Callable[[Result], dict[int, float]]  # the name of a Result's series, or a function to {step: value}
Cell = str | tuple[str, str | None]  # of a table: its text, and smaller text below


class Table(NamedTuple):
    """A table of the page: column names, rows, and the indices of the rows in bold."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    heroes: Sequence[int] = ()


class Figure(NamedTuple):
    """A figure with heading and table. kind: key of its caption in templates/captions.html; drawn: matplotlib's figure.

    of: the score that it shows, which comes before the kind in its file name.
    """

    kind: str
    title: str
    drawn: Any
    table: Table | None = None
    of: str = ""

    @property
    def name(self) -> str:
        return f"{self.of}_{self.kind}" if self.of else self.kind


def shown_setting(study: Study) -> str:
    """The setting for figures of a single one: C, the paper's choice for its CNN, or the study's first."""
    return "C" if study.table is SETTINGS and "C" in study.settings else study.settings[0]


# ---- Words and tables ----------------------------------------------------------------------------------------------


def name_of(method: str) -> str:
    return METHODS[method].label


def weight_of(method: str) -> str:
    """The font weight of a method's name: bold for spectral norm."""
    return "bold" if method == HERO else "normal"


def number(value: float) -> str:
    """Format a number with three significant digits, or all integer digits below a million."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def cell(spread: Interval | None) -> Cell:
    """A table cell with a mean and, for several seeds, its interval."""
    if spread is None:
        return "-"
    return number(spread.mean), f"{number(spread.low)} to {number(spread.high)}" if spread.count > 1 else None


def table_of_methods(header: Sequence[str], rows: Mapping[str, Sequence[Cell]]) -> Table:
    """Make a table from {method: the cells after its name}, with spectral norm in bold."""
    heroes = [place for place, method in enumerate(rows) if method == HERO]
    return Table(["method", *header], [[name_of(method), *cells] for method, cells in rows.items()], heroes)


# ---- Axes ----------------------------------------------------------------------------------------------------------


def panels(count: int, columns: int, height: float, steps: bool = False, **options: Any) -> tuple[Any, list[Any]]:
    """A figure and its `count` panels. steps: whether x is the step. options: of pyplot.subplots()."""
    rows = -(-max(1, count) // columns)
    size = (WIDTH, height * rows + 0.5)
    figure, axes = pyplot().subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    for axis in axes.flat[count:]:
        axis.remove()
    for axis in axes.flat[max(0, count - columns) : count]:  # the lowest of each column, even if it ends early
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[-1] if steps else ():
        axis.set_xlabel("step (updates of G)", fontsize=10)
    for axis in axes.flat[:count]:
        axis.grid(alpha=0.3)
    return figure, list(axes.flat[:count])


def name_rows(axis: Any, methods: Sequence[str]) -> None:
    """Label the rows of a panel with methods, from the top."""
    axis.set_yticks(range(len(methods)), list(map(name_of, methods)))
    axis.set_ylim(len(methods) - 0.5, -0.5)
    for label, method in zip(axis.get_yticklabels(), methods):
        label.set_fontweight(weight_of(method))


def legend(figure: Any, lines: Iterable[dict[str, Any]], labels: Iterable[str], columns: int) -> None:
    """Draw a legend below the panels."""
    handles = [pyplot().Line2D([], [], **line) for line in lines]
    spacing = {"frameon": False, "handlelength": 3.2, "columnspacing": 1.2}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **spacing)


def legend_of_methods(figure: Any, methods: Sequence[str]) -> None:
    legend(figure, map(line_of, methods), map(name_of, methods), columns=3)


def line_of(method: str) -> dict[str, Any]:
    """The line style of a method in curves over training."""
    row, place = divmod([HERO, *(name for name in METHODS if name != HERO)].index(method), len(DASHES))
    at_end = {"marker": MARKERS[row % len(MARKERS)], "markevery": [-1], "ms": 4}
    width = 2.8 if method == HERO else 1.3
    return {"color": COLOURS[method], "linewidth": width, "linestyle": DASHES[place]} | at_end


def pictures(rows: Sequence[str], columns: Sequence[str]) -> tuple[Any, np.ndarray]:
    """A figure for small pictures with named rows and columns, and its axes (rows, columns)."""
    shape, size = (len(rows), len(columns)), (WIDTH, 0.93 * len(rows) + 0.4)
    figure, axes = pyplot().subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for axis, words in zip(axes[:, 0], rows):
        axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9)
    for axis, words in zip(axes[0], columns):
        axis.set_title(words, fontsize=10)
    return figure, axes


def band(
    axis: Any, results: Sequence[Result], values: Values, line: Mapping[str, Any], geometric: bool = False
) -> None:
    """Draw the mean of the finished runs in a band from lowest to highest; unfinished runs as dotted lines.

    The steps are those at which all finished runs have a value. line: style of the mean. geometric: draw the geometric
    mean instead, of positive values.
    """
    read = methodcaller("series", values) if isinstance(values, str) else values
    series = [found for result in results if result.finished and (found := read(result))]
    colour = line["color"]
    if steps := sorted(set.intersection(*map(set, series))) if series else []:
        found = np.array([[each[step] for step in steps] for each in series])
        mean = np.exp(np.log(np.maximum(found, 1e-12)).mean(axis=0)) if geometric else found.mean(axis=0)
        axis.plot(steps, mean, **line)
        axis.fill_between(steps, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.18, linewidth=0)
    for result in results:
        if not result.finished and (points := read(result)):
            axis.plot(*zip(*sorted(points.items())), color=colour, linewidth=1, linestyle=":")
