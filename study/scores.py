"""The figures of a study's scores, with a computed sentence to each (after Miyato et al. 2018, figures 1 and 2)."""

import statistics
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from evaluation.scores.registry import OWN
from settings.config import to_flag
from utils.plots import pyplot

from .drawing import (
    COLOURS,
    HERO,
    Figure,
    band,
    extremes,
    legend,
    name_of,
    name_rows,
    names_of,
    number,
    panels,
    plain_ticks,
)
from .grid import Study
from .methods import METRICS, SETTINGS
from .results import Interval, Result, by, means, worst_cases

TITLE = {2: 40, 3: 25}  # characters of a panel's title in a line, by the number of columns


def scores(study: Study, results: Sequence[Result], metric: str) -> Figure:
    """The last step's score of every run: a panel a setting, a row a method; dots are seeds, bars 95 % intervals."""
    words, logarithmic = METRICS[metric].heading, METRICS[metric].log
    scored = [result for result in results if result.last.get(metric) is not None]
    found = means(results, metric)
    columns = 3 if len(study.settings) == 3 else 2
    height = 0.24 * len(study.methods) + 0.75
    figure, axes = panels(len(study.settings), columns, height, sharex=True, sharey=True)
    for axis, setting in zip(axes, study.settings):
        for result in scored:
            if result.run.setting == setting:
                row, colour = study.methods.index(result.run.method), COLOURS[result.run.method]
                _dot(axis, result.last[metric], row, colour, result.outcome.state)
        for row, method in enumerate(study.methods):
            if spread := found.get((setting, method)):
                axis.plot([spread.low, spread.high], [row, row], color=COLOURS[method], linewidth=1.5)
                axis.plot([spread.mean], [row], "|", ms=11, mew=2.5, color=COLOURS[method])
        axis.set_title(textwrap.fill(_setting_title(study, setting), TITLE[columns]), fontsize=10)
    _scale(axes, [result.last[metric] for result in scored], found.values(), logarithmic)
    name_rows(axes[0], study.methods)
    figure.supxlabel(f"{words} at the last step ({METRICS[metric].direction})", fontsize=10)
    return Figure(f"{metric}_by_setting", f"{words} by setting and method", figure, _on_scores(study, results, metric))


def _dot(axis: Axes, value: float, row: int, colour: str, state: str) -> None:
    """One run: a dot; hollow, where it is not finished, and a cross, where it diverged."""
    if state == "diverged":
        axis.plot([value], [row], "x", ms=6, color=colour)
    else:
        filled = {"mew": 0} if state == "finished" else {"mfc": "none"}
        axis.plot([value], [row], "o", ms=4, alpha=0.6, color=colour, **filled)


def _scale(axes: list[Axes], values: Sequence[float], spreads: Iterable[Interval], logarithmic: bool) -> None:
    """Limits that show every value, and the intervals as far as those do not make them a quarter wider."""
    points = np.array(values or [float(logarithmic)])  # 0 on the axis, where there are none
    ends = np.array([end for spread in spreads for end in (spread.low, spread.high)])
    if logarithmic:
        points, ends = np.log(np.maximum(points, 1e-3)), np.log(np.maximum(ends, 1e-3))
    room = max(np.ptp(points), 0.1)
    low = max(min([*points, *ends]), points.min() - room / 8) - 0.05 * room
    high = min(max([*points, *ends]), points.max() + room / 8) + 0.05 * room
    axes[0].set_xlim(*(np.exp([low, high]) if logarithmic else (low, high)))
    if logarithmic:
        axes[0].set_xscale("log")
        for axis in axes:
            plain_ticks(axis.xaxis)


def _setting_title(study: Study, setting: str) -> str:
    found = study.table[setting]
    if study.table is not SETTINGS:
        return f"{setting}: " + (", ".join(f"{name} {to_flag(value)}" for name, value in found.items()) or "as in base")
    beta1, beta2 = found["betas"]
    return f"{setting}: lr {found['lr_G']:g}, betas {beta1:g}, {beta2:g}, n_dis {found['n_dis']}"


def _on_scores(study: Study, results: Sequence[Result], metric: str) -> str:
    """Who is best where, in how many settings surely so, and who has the best worst setting."""
    found = means(results, metric)
    words, badness = METRICS[metric].heading, METRICS[metric].badness
    winners: dict[str, list[str]] = {}
    sure = 0
    for setting in study.settings:
        own = {method: spread for (where, method), spread in found.items() if where == setting}
        if own:
            least = min(badness(spread.mean) for spread in own.values())
            winners[setting] = [method for method, spread in own.items() if badness(spread.mean) == least]
            sure += len(own) > 1 and _apart(own, winners[setting][0])
    if not winners:
        return f"No finished run has its {words} yet."
    each = ", ".join(f"{setting} {names_of(m)} ({number(found[setting, m[0]].mean)})" for setting, m in winners.items())
    text = f"Best mean {words} by setting: {each}."
    if len(study.methods) > 1 and all(spread.count > 1 for spread in found.values()):
        text += f" In {sure} of {len(winners)} settings the best one's interval lies apart from all others'"
        text += f" ({len(study.seeds)} seeds make wide intervals)." if len(study.seeds) < 5 else "."
    worst = worst_cases(study, found, metric)
    if len(winners) > 1 and len(worst) > 1:
        best = next(iter(worst.values()))
        first = [method for method, value in worst.items() if badness(value) == badness(best)]
        text += (
            f" Over all {len(winners)} settings {names_of(first)} {'has' if len(first) == 1 else 'have'} the best worst"
        )
        text += f" case ({number(best)})"
        if HERO in worst:
            place = 1 + sum(badness(value) < badness(worst[HERO]) for value in worst.values())
            wins = sum(HERO in methods for methods in winners.values())
            text += f"; {name_of(HERO)} is number {place} of {len(worst)} by that" if first != [HERO] else ""
            text += f", and {'is ' if first == [HERO] else ''}best in {wins} of {len(winners)} settings"
        text += "."
    left_out = sum(not result.finished for result in results)
    return text + (f" Left out of the means: {left_out} of {len(results)} runs, not finished." if left_out else "")


def _apart(own: dict[str, Interval], best: str) -> bool:
    """Whether the best method's interval lies apart from those of all others."""
    low, high = own[best].low, own[best].high
    return all(spread.high < low or spread.low > high for method, spread in own.items() if method != best)


def curves(study: Study, results: Sequence[Result], metric: str, own: bool = False) -> Figure:
    """A score over training: a panel a method, a line a setting, a band from the lowest to the highest seed.

    own: of G itself, where the moving average of its weights is scored too.
    """
    words, logarithmic = METRICS[metric].heading, METRICS[metric].log
    name, words = (metric + OWN, f"{words} of G itself") if own else (metric, words)
    groups = by(results, "method", "setting")
    figure, axes = panels(len(study.methods), 3, 1.6, over_training=True, sharex=True, sharey=True)
    colours = dict(zip(study.settings, pyplot().get_cmap("viridis")(np.linspace(0, 0.92, len(study.settings)))))
    for axis, method in zip(axes, study.methods):
        for setting in study.settings:
            runs, values = groups.get((method, setting), []), lambda r: dict(r.values(name))
            band(axis, runs, values, colours[setting], geometric=logarithmic)
        axis.set_title(name_of(method), fontsize=10, fontweight="bold" if method == HERO else "normal")
        if logarithmic:
            axis.set_yscale("log")
            plain_ticks(axis.yaxis)
    legend(figure, colours.values(), [f"setting {setting}" for setting in study.settings], 6)
    figure.supylabel(words, fontsize=10)
    text = _on_curves(study, results, metric, name, words)
    return Figure(f"{name}_curves", f"{words} over training", figure, text)


def _on_curves(study: Study, results: Sequence[Result], metric: str, name: str, words: str) -> str:
    """How much of the best step's score is lost at the last one: a factor of FID and the like, else a difference."""
    badness, logarithmic = METRICS[metric].badness, METRICS[metric].log
    lost = {}
    for method in study.methods:
        found = [result for result in results if result.run.method == method and result.finished]
        lines = [[value for _, value in result.values(name)] for result in found]
        pairs = [(values[-1], min(values, key=badness)) for values in lines if len(values) > 1]
        if logarithmic:
            pairs = [(last, best) for last, best in pairs if best > 0]
        losses = [last / best if logarithmic else badness(last) - badness(best) for last, best in pairs]
        if losses:
            lost[method] = statistics.median(losses)
    if not lost:
        return "No finished run has been scored during training."
    told = extremes(lost, "most for", "least for", lambda value: f"{value:.2f}" if logarithmic else number(value))
    by = "By which factor" if logarithmic else "By how much"
    return (
        f"{by} the last {words} is worse than the best one of the run, as the median over settings and seeds: {told}."
    )
