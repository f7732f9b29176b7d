"""Robustness, stability and speed of each method: ranks over all settings, and the time of a step."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evaluation.scores.registry import OWN

from .drawing import COLOURS, Cell, Figure, Table, cell, name_rows, number, panels, table_of_methods
from .grid import Study
from .results import Interval, Result, by, interval, mean, over_settings

UNSTABLE = 2.0  # a score is unstable if FID exceeds the best one so far by this factor


def seconds_at(result: Result) -> dict[int, float]:
    """{step of the log: seconds of training up to it}, without scoring and audits."""
    total, before, found = 0.0, 0, {}
    for step, seconds in result.series("seconds_per_step").items():
        total, before = total + (step - before) * seconds, step
        found[step] = total
    return found


def seconds_to(result: Result, fid: float) -> float:
    """The seconds of training until a score first reaches this FID or less; infinity if none does."""
    reached = next((step for step, value in result.series("fid").items() if value <= fid), math.inf)
    return next((seconds for step, seconds in seconds_at(result).items() if step >= reached), math.inf)


def unstable(result: Result, name: str = "fid") -> float | None:
    """The share of scores after the first whose FID exceeds UNSTABLE times the best before."""
    values = list(result.series(name).values())
    return mean(value > UNSTABLE * min(values[:i]) for i, value in enumerate(values) if i)


def steadied(results: Sequence[Result]) -> str:
    """The name of the FID for stability: of G itself if that is scored; its moving average hides instability."""
    return "fid" + OWN if any(result.series("fid" + OWN) for result in results) else "fid"


def median_best(results: Sequence[Result]) -> float | None:
    """The FID that half of the runs reach: the median over runs of each run's best FID."""
    return _median(result.best.get("fid") for result in results)


# ---- Ranks ---------------------------------------------------------------------------------------------------------


class Rank(NamedTuple):
    """A method's results over all settings.

    worst, median: Intervals over seeds of the last FID in each seed's worst and median setting. last_over_best: last
    FID / best FID, median over runs. own_over_average: G's own last FID / that of its moving average, median over runs.
    seconds: median time to a FID, None if half of the runs or more do not reach it. unstable: mean over runs of
    unstable(), for the FID of steadied(). reached, collapsed, diverged, runs: numbers of runs.
    """

    method: str
    worst: Interval | None
    median: Interval | None
    last_over_best: float | None
    own_over_average: float | None
    seconds: float | None
    reached: int
    unstable: float | None
    collapsed: int
    diverged: int
    runs: int


def ranks(study: Study, results: Sequence[Result], target: float | None) -> list[Rank]:
    """A Rank for each method, ordered by diverged runs and then by the worst setting.

    target: the FID to which seconds are counted, or None. Methods without a worst setting come last.
    """
    name = steadied(results)
    groups = by(results, "method")
    found = [_rank(study, method, groups.get(method, []), target, name) for method in study.methods]
    return sorted(found, key=lambda rank: (rank.worst is None, rank.diverged, rank.worst.mean if rank.worst else 0))


def _rank(study: Study, method: str, results: Sequence[Result], target: float | None, steady: str) -> Rank:
    finished = [result for result in results if result.finished and result.last]
    times = [seconds_to(result, target) if target else math.inf for result in results]
    seconds = _median(times)
    return Rank(
        method=method,
        worst=over_settings(study, results, "fid", max),
        median=over_settings(study, results, "fid", statistics.median),
        last_over_best=_median(r.last["fid"] / r.best["fid"] for r in finished if r.best["fid"] > 0),
        own_over_average=_median(map(_own_factor, results)),
        seconds=None if seconds == math.inf else seconds,
        reached=len(times) - times.count(math.inf),
        unstable=mean(unstable(result, steady) for result in results),
        collapsed=sum(result.collapsed for result in finished),
        diverged=sum(result.outcome.state == "diverged" for result in results),
        runs=len(results),
    )


def _own_factor(result: Result) -> float | None:
    """G's own FID divided by its moving average's, at the last step with both."""
    averaged, own = result.series("fid"), result.series("fid" + OWN)
    step = max(averaged.keys() & own.keys(), default=None)
    return own[step] / averaged[step] if step is not None and averaged[step] > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are not None, or None without any."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def ranking(study: Study, results: Sequence[Result]) -> Table:
    """The table of ranks, one row per method. Seconds are to target_fid or, by default, to the FID of median_best()."""
    target = study.target_fid or median_best(results)
    found = ranks(study, results, target)
    columns: dict[str, list[Cell]] = {
        "worst setting": [cell(rank.worst) for rank in found],
        "median setting": [cell(rank.median) for rank in found],
        "last / best": [_shown(rank.last_over_best, ".2f") for rank in found],
        "G itself": [_shown(rank.own_over_average, ".2f") for rank in found],
        f"seconds to FID {number(target)}" if target else "seconds": [
            (number(rank.seconds) if rank.seconds else "-", f"{rank.reached} of {rank.runs} runs") for rank in found
        ],
        "unstable": [_shown(rank.unstable, ".0%") for rank in found],
        "collapsed": [str(rank.collapsed) for rank in found],
        "diverged": [str(rank.diverged) for rank in found],
    }
    if not any(rank.own_over_average for rank in found):
        del columns["G itself"]
    rows = dict(zip([rank.method for rank in found], zip(*columns.values())))
    return table_of_methods([*columns], rows)


# ---- Cost ----------------------------------------------------------------------------------------------------------


def seconds(study: Study, results: Sequence[Result]) -> Figure:
    """The measured time of a step (G's update and n_dis of D's) by method and n_dis."""
    groups = by(results, "config.n_dis", "method")
    counts = sorted({n_dis for (n_dis, _), its in groups.items() if _milliseconds(its)})
    figure, axes = panels(len(counts), 2, 0.24 * len(study.methods) + 1, sharey=True)
    cells: dict[str, list[Cell]] = {method: [] for method in study.methods}
    for axis, n_dis in zip(axes, counts):
        times = {method: _milliseconds(groups.get((n_dis, method), [])) for method in study.methods}
        plain = times.get("none")
        for row, (method, spread) in enumerate(times.items()):
            factor = f"x {spread.mean / plain.mean:.2f}" if spread and plain else None
            cells[method].append((f"{spread.mean:.1f}", factor) if spread else "-")
            if spread:
                axis.barh(row, spread.mean, color=COLOURS[method], alpha=0.8)
                axis.plot([spread.low, spread.high], [row, row], color="black", linewidth=1.2)
        axis.set_title(f"n_dis {n_dis}", fontsize=10)
    for axis in axes[:1]:  # the other panels share its rows
        name_rows(axis, study.methods)
    figure.supxlabel("milliseconds per step of G", fontsize=10)
    table = table_of_methods([f"n_dis {n_dis}" for n_dis in counts], cells)
    return Figure("seconds_per_step", "Time of a step of G", figure, table)


def _milliseconds(results: Sequence[Result]) -> Interval | None:
    return interval([1000 * seconds for result in results if (seconds := result.seconds_per_step)])
