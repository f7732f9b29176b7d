"""Figures of a study's scores by setting and method, and over training (Miyato et al. 2018, figures 1 and 2)."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.scores.registry import OWN
from settings.config import to_flag
from utils.plots import DASHES, plain_ticks, pyplot, scaled

from .drawing import COLOURS, Figure, Table, band, cell, legend, name_of, name_rows, panels, weight_of
from .grid import Study
from .methods import METRICS, SETTINGS
from .results import Means, Result, by, means

TITLE = {2: 40, 3: 25}  # characters per line of a panel's title, by the number of columns
ROOM = 0.175  # beyond the outermost dots, as a share of their range
HOLLOW: dict[str, Any] = {"marker": "o", "ms": 4, "alpha": 0.6, "mfc": "none"}  # a run that is not finished
DOTS: dict[str, dict[str, Any]] = {"finished": HOLLOW | {"mfc": None, "mew": 0}, "diverged": {"marker": "x", "ms": 6}}


def scores(study: Study, results: Sequence[Result], metric: str) -> Figure:
    """Every run's score at the last step: one panel per setting, one row per method, with 95 % intervals."""
    words, logarithmic = METRICS[metric].heading, METRICS[metric].log
    columns = 3 if len(study.settings) == 3 else 2
    height = 0.24 * len(study.methods) + 0.75
    figure, axes = panels(len(study.settings), columns, height, sharex=True, sharey=True)
    found = means(results, metric)
    groups = by([result for result in results if result.last.get(metric) is not None], "setting")
    for axis, setting in zip(axes, study.settings):
        for result in groups.get(setting, []):
            row, colour = study.methods.index(result.run.method), COLOURS[result.run.method]
            axis.plot([result.last[metric]], [row], color=colour, **DOTS.get(result.outcome.state, HOLLOW))
        axis.set_title(textwrap.fill(_setting_title(study, setting), TITLE[columns]), fontsize=10)
    for (setting, method), spread in found.items():
        axis, row, colour = axes[study.settings.index(setting)], study.methods.index(method), COLOURS[method]
        axis.plot([spread.low, spread.high], [row, row], color=colour, linewidth=1.5)
        axis.plot([spread.mean], [row], "|", ms=11, mew=2.5, color=colour)
    axes[0].set_xlim(*_limits([r.last[metric] for its in groups.values() for r in its], logarithmic))
    for axis in axes if logarithmic else ():
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
    name_rows(axes[0], study.methods)
    figure.supxlabel(f"{words} at the last step ({METRICS[metric].direction})", fontsize=10)
    return Figure("by_setting", f"{words} by setting and method", figure, _best(study, found, metric), of=metric)


def _limits(values: Sequence[float], logarithmic: bool) -> np.ndarray:
    """The limits of an axis, a little beyond these values; longer intervals are cut off."""
    points = np.log(np.maximum(values or [1.0], 1e-3)) if logarithmic else np.array(values or [0.0])
    room = ROOM * max(np.ptp(points), 0.1)
    ends = np.array([points.min() - room, points.max() + room])
    return np.exp(ends) if logarithmic else ends


def _setting_title(study: Study, setting: str) -> str:
    found = study.table[setting]
    if study.table is not SETTINGS:
        return f"{setting}: " + (", ".join(f"{name} {to_flag(value)}" for name, value in found.items()) or "as in base")
    beta1, beta2 = found["betas"]
    return f"{setting}: lr {found['lr_G']:g}, betas {beta1:g}, {beta2:g}, n_dis {found['n_dis']}"


def _best(study: Study, found: Means, metric: str) -> Table:
    """The table of the best method in each setting, and whether its interval is apart."""
    badness, rows = METRICS[metric].badness, []
    for setting in study.settings:
        own = {method: spread for (where, method), spread in found.items() if where == setting}
        if own:
            least = min(badness(spread.mean) for spread in own.values())
            best = [method for method, spread in own.items() if badness(spread.mean) == least]
            others = [spread for method, spread in own.items() if method != best[0]]
            apart = bool(others) and all(own[best[0]].apart(spread) for spread in others)
            rows.append([setting, ", ".join(map(name_of, best)), cell(own[best[0]]), "yes" if apart else "no"])
    return Table(["setting", "best method", METRICS[metric].heading, "apart from all others"], rows)


def curves(study: Study, results: Sequence[Result], metric: str, own: bool = False) -> Figure:
    """A score over training: one panel per method, one line per setting, bands from lowest to highest seed.

    own: the score of G itself, next to that of its moving average.
    """
    words, logarithmic = METRICS[metric].heading, METRICS[metric].log
    name, words = (metric + OWN, f"{words} of G itself") if own else (metric, words)
    groups = by(results, "method", "setting")
    figure, axes = panels(len(study.methods), 3, 1.6, steps=True, sharex=True, sharey=True)
    colours = pyplot().get_cmap("viridis")(np.linspace(0, 0.92, len(study.settings)))
    lines = [{"color": colour, "linestyle": dashes} for colour, dashes in zip(colours, itertools.cycle(DASHES))]
    for axis, method in zip(axes, study.methods):
        for setting, line in zip(study.settings, lines):
            band(axis, groups.get((method, setting), []), name, line, geometric=logarithmic)
        axis.set_title(name_of(method), fontsize=10, fontweight=weight_of(method))
    if logarithmic:
        for axis in axes:
            scaled(axis, "log")
    legend(figure, lines, [f"setting {setting}" for setting in study.settings], 6)
    figure.supylabel(f"{words} ({METRICS[metric].direction})", fontsize=10)
    return Figure("curves", f"{words} over training", figure, of=name)
