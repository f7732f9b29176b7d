"""How robust, how steady and how quick each method is: its rank over all settings, as a table and a figure."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from evaluation.scores.registry import OWN

from .drawing import Cell, Figure, Table, bars, cell, number, table_of_methods
from .grid import Study
from .results import Interval, Result, by, interval, mean

UNSTABLE = 2.0  # a FID of so many times the best one so far


def seconds_at(result: Result) -> dict[int, float]:
    """{step: the seconds of training up to it}, at the steps of the log, without scoring and audits."""
    total, before, found = 0.0, 0, {}
    for step, seconds in result.series("seconds_per_step").items():
        total, before = total + (step - before) * seconds, step
        found[step] = total
    return found


def seconds_to(result: Result, fid: float) -> float | None:
    """The seconds of training after which a score is first at or below this FID; None where none is."""
    reached = next((step for step, value in result.series("fid").items() if value <= fid), math.inf)
    return next((seconds for step, seconds in seconds_at(result).items() if step >= reached), None)


def unstable(result: Result, name: str = "fid") -> float | None:
    """The share of the scored steps, after the first, at which FID is more than UNSTABLE times the best so far."""
    values = list(result.series(name).values())
    return mean(value > UNSTABLE * min(values[:i]) for i, value in enumerate(values) if i)


def steadied(results: Sequence[Result]) -> str:
    """The FID that says how steady training is: of G itself where that is scored, as its moving average hides it."""
    return "fid" + OWN if any(result.series("fid" + OWN) for result in results) else "fid"


def median_best(results: Sequence[Result]) -> float | None:
    """The FID that half of the runs reach: the median of the best ones of each."""
    return _median([result.best["fid"] for result in results if result.best])


# ---- Ranks ---------------------------------------------------------------------------------------------------------


class Rank(NamedTuple):
    """What a method came to over all settings: Intervals over seeds of its worst and its median setting's last FID.

    The others are over runs: last_over_best and own_over_average are medians of FIDs, the latter of G's own last FID
    over that of its moving average. seconds: the median to a FID; None where half of them or more do not come there, as
    `reached` do. unstable: the mean share of the scores of steadied(). Counts are of runs.
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

    @property
    def lost_runs(self) -> int:
        return self.collapsed + self.diverged


def ranks(study: Study, results: Sequence[Result], target: float | None) -> list[Rank]:
    """A Rank for each method: first those of which no run diverged, by their worst setting.

    target: the FID to which seconds are counted.
    """
    name = steadied(results)
    found = [
        _rank(study, method, [r for r in results if r.run.method == method], target, name) for method in study.methods
    ]
    return sorted(found, key=lambda rank: (rank.worst is None, rank.diverged, rank.worst.mean if rank.worst else 0))


def _rank(study: Study, method: str, results: Sequence[Result], target: float | None, steady: str) -> Rank:
    finished = [result for result in results if result.finished and result.last]
    whole = [group for group in by(finished, "seed").values() if len(group) == len(study.settings)]
    fids = [[result.last["fid"] for result in group] for group in whole]  # a seed that lacks a setting has no worst one
    times = [seconds_to(result, target) if target else None for result in results]
    seconds = _median([math.inf if time is None else time for time in times])
    return Rank(
        method=method,
        worst=interval(map(max, fids), logarithmic=True),
        median=interval(map(statistics.median, fids), logarithmic=True),
        last_over_best=_median(
            [result.last["fid"] / result.best["fid"] for result in finished if result.best["fid"] > 0]
        ),
        own_over_average=_median([factor for result in results if (factor := _own_factor(result))]),
        seconds=None if seconds == math.inf else seconds,
        reached=len(times) - times.count(None),
        unstable=mean(unstable(result, steady) for result in results),
        collapsed=sum(result.collapsed for result in results),
        diverged=sum(result.outcome.state == "diverged" for result in results),
        runs=len(results),
    )


def _own_factor(result: Result) -> float | None:
    """The FID of G itself over that of its moving average, at the last step at which both were scored."""
    averaged, own = result.series("fid"), result.series("fid" + OWN)
    step = max(averaged.keys() & own.keys(), default=None)
    return own[step] / averaged[step] if step is not None and averaged[step] > 0 else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def ranking(study: Study, results: Sequence[Result]) -> Table:
    """The table of ranks, a row a method. Seconds are to target_fid or else to the FID that half of the runs reach."""
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


# ---- Figures -------------------------------------------------------------------------------------------------------


def steadiness(study: Study, results: Sequence[Result]) -> Figure:
    """The share of unstable scores of each method: of what is scored, and of G itself where that is scored too."""
    averaged = any(result.run.config.ema_decay for result in results)
    titles = {"fid": "the moving average of G" if averaged else "G", "fid" + OWN: "G itself"}
    found: dict[str, dict[str, Sequence[float]]] = {}
    for name in dict.fromkeys(["fid", steadied(results)]):
        shares = {m: mean(unstable(r, name) for r in its) for m, its in by(results, "method").items()}
        found[titles[name]] = {method: [100 * share] * 3 for method, share in shares.items() if share is not None}
    figure = bars(study, found, f"scores above {UNSTABLE:g} times the best one so far, %", sharex=True)
    return Figure("stability", "How often training falls back", figure)


def seconds(study: Study, results: Sequence[Result]) -> Figure:
    """The measured time of a step of G, with its n_dis updates of D, by method."""
    found: dict[str, dict[str, Interval]] = {}
    for (n_dis, method), its in sorted(by(results, "config.n_dis", "method").items()):
        if spread := interval([1000 * time for result in its if (time := result.seconds_per_step)]):
            found.setdefault(f"n_dis {n_dis}", {})[method] = spread
    shown = {title: {method: spread[:3] for method, spread in its.items()} for title, its in found.items()}
    rows = {method: [_of_plain(spreads, method) for spreads in found.values()] for method in study.methods}
    figure = bars(study, shown, "milliseconds per step of G")
    return Figure("seconds_per_step", "Time of a step of G", figure, table_of_methods([*found], rows))


def _of_plain(spreads: dict[str, Interval], method: str) -> Cell:
    """A method's mean, and below it how many times that without normalization it is."""
    if method not in spreads:
        return "-"
    time = spreads[method].mean
    return f"{time:.1f}", f"x {time / spreads['none'].mean:.2f}" if "none" in spreads else None
