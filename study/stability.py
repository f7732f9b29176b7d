"""How steadily and how quickly the methods of a study got where they are: ranks, time to a FID, strips of samples."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluation.scores.registry import OWN
from utils.plots import pyplot

from .drawing import COLOURS, HERO, WIDTH, Figure, extremes, name_of, name_rows, number, panels, shown_setting
from .grid import Study
from .methods import METHODS
from .results import Interval, Result, by, interval
from .samples import grids_of, show

FRAMES, SEEN = 7, 4  # steps of a strip, and samples of each
UNSTABLE = 2.0  # a FID of so many times the best one so far


def seconds_at(result: Result) -> dict[int, float]:
    """{step: the seconds of training up to it}, at the steps of the log, without scoring and audits."""
    total, before, found = 0.0, 0, {}
    for step, seconds in result.values("seconds_per_step"):
        total, before = total + (step - before) * seconds, step
        found[step] = total
    return found


def seconds_to(result: Result, fid: float) -> float | None:
    """The seconds of training after which a score is first at or below this FID; None where none is."""
    reached = next((step for step, value in result.values("fid") if value <= fid), None)
    clock = seconds_at(result)
    steps = [step for step in clock if reached is not None and step >= reached]
    return clock[min(steps)] if steps else None


def unstable(result: Result, name: str = "fid") -> float | None:
    """The share of the scored steps, after the first, at which FID is more than UNSTABLE times the best so far."""
    values = [value for _, value in result.values(name)]
    if len(values) < 2:
        return None
    return statistics.fmean(value > UNSTABLE * min(values[:i]) for i, value in enumerate(values) if i)


def steadied(results: Sequence[Result]) -> str:
    """The FID that says how steady training is: of G itself where that is scored, as its moving average hides it."""
    return "fid" + OWN if any(result.values("fid" + OWN) for result in results) else "fid"


def median_best(results: Sequence[Result]) -> float | None:
    """The FID that half of the runs reach: the median of the best ones of each."""
    best = [result.best["fid"] for result in results if result.best]
    return statistics.median(best) if best else None


# ---- Ranks ---------------------------------------------------------------------------------------------------------


class Rank(NamedTuple):
    """What a method came to over all settings: Intervals over seeds of its worst and its median setting's last FID.

    own: the median over runs of G's own last FID over that of its moving average. seconds: to `target`, the median over
    runs; None where half of them or more do not come there, as `reached` do. unstable: a share of the scores of
    steadied(), the mean over runs. Counts are of runs.
    """

    method: str
    worst: Interval | None
    median: Interval | None
    own: float | None
    seconds: float | None
    reached: int
    unstable: float | None
    collapsed: int
    diverged: int
    runs: int


def ranks(study: Study, results: Sequence[Result], target: float | None) -> list[Rank]:
    """A Rank for each method: first those of which no run diverged, by their worst setting."""
    groups = {method: [r for r in results if r.run.method == method] for method in study.methods}
    found = [_rank(study, method, group, target, steadied(results)) for method, group in groups.items()]
    return sorted(found, key=lambda rank: (rank.worst is None, rank.diverged, rank.worst.mean if rank.worst else 0))


def _rank(study: Study, method: str, results: Sequence[Result], target: float | None, name: str) -> Rank:
    seeds = [
        [r.last["fid"] for r in group]
        for group in by([r for r in results if r.finished and r.last], "seed").values()
        if len(group) == len(study.settings)  # a seed without one of its settings has no worst one
    ]
    pairs = [(dict(r.values("fid")), dict(r.values("fid" + OWN))) for r in results]
    both = [(ema[step], own[step]) for ema, own in pairs if (step := max(ema.keys() & own.keys(), default=None))]
    times = [t for r in results if target is not None and (t := seconds_to(r, target)) is not None]
    seconds = _median([*times, *[math.inf] * (len(results) - len(times))])
    shares = [share for r in results if (share := unstable(r, name)) is not None]
    return Rank(
        method,
        interval(map(max, seeds), logarithmic=True),
        interval(map(statistics.median, seeds), logarithmic=True),
        _median([own / ema for ema, own in both if ema > 0]),
        seconds if seconds is not None and math.isfinite(seconds) else None,
        len(times),
        statistics.fmean(shares) if shares else None,
        sum(result.collapsed for result in results),
        sum(result.outcome.state == "diverged" for result in results),
        len(results),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def ranking(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    """The table of the ranks() as the page takes it: header, rows, the places of spectral norm; and what it says."""
    target = study.target_fid or median_best(results)
    found = ranks(study, results, target)
    header = ["method", "worst setting", "median setting", *(["G itself"] if any(r.own for r in found) else [])]
    header += [f"seconds to FID {number(target)}" if target else "seconds", "unstable", "collapsed", "diverged"]
    rows = []
    for rank in found:
        own = [f"x {rank.own:.2f}" if rank.own else "-"] if "G itself" in header else []
        quick = (number(rank.seconds) if rank.seconds else "-", f"{rank.reached} of {rank.runs} runs")
        share = f"{rank.unstable:.0%}" if rank.unstable is not None else "-"
        counts = [str(rank.collapsed), str(rank.diverged)]
        rows.append([METHODS[rank.method].label, cell(rank.worst), cell(rank.median), *own, quick, share, *counts])
    heroes = [place for place, rank in enumerate(found) if rank.method == HERO]
    return {"table": (header, rows, heroes), "text": _on_ranks(study, found, target)}


def cell(spread: Interval | None) -> tuple[str, str | None]:
    """A mean as the page's tables take it, with its interval below it where it is of several seeds."""
    if spread is None:
        return "-", None
    return number(spread.mean), f"{number(spread.low)} to {number(spread.high)}" if spread.count > 1 else None


def _on_ranks(study: Study, found: Sequence[Rank], target: float | None) -> str:
    """Who is first by the worst setting, by the median one, and in seconds."""
    worst = {rank.method: rank.worst.mean for rank in found if rank.worst}
    middle = [(rank.diverged, rank.median.mean, rank.method) for rank in found if rank.median]
    if not worst or target is None:
        return "No method is finished in all settings yet."
    several = len(study.seeds) > 1
    text = "FID at the last step" + (", geometric means over seeds of each seed's worst" if several else ", the worst")
    text += f" and median setting{', with 95 % intervals' if several else ''}; first the methods of which no run "
    order = {method: fid for _, fid, method in sorted(middle)}
    text += f"diverged. By the worst setting {_place(worst)}; by the median one {_place(order)}."
    quick = {rank.method: rank.seconds for rank in found if rank.seconds}
    if quick:
        text += f" In seconds of training to FID {number(target)}"
        text += "" if study.target_fid else ", the median of the best ones of all runs"
        text += f", as the median over a method's runs, {_place(_rising(quick))}"
        late = [rank.method for rank in found if not rank.seconds]
        of = name_of(late[0]) if len(late) == 1 else f"{len(late)} methods"
        text += f"; of {of} half of the runs or more do not come there." if late else "."
    of = " of G itself" if any(rank.own for rank in found) else ""
    text += " G itself: its last FID in units of its moving average's, the median over runs." if of else ""
    return text + f" Unstable: the share of scores{of}, after the first, above {UNSTABLE:g} times the best so far."


def _rising(values: dict[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: item[1]))


def _place(values: dict[str, float]) -> str:
    """Who is first of {method: value}, best first, and where spectral norm is."""
    order = list(values)
    text = f"{name_of(order[0])} is first ({number(values[order[0]])})"
    if HERO in order[1:]:
        text += f", {name_of(HERO)} number {order.index(HERO) + 1} of {len(order)} ({number(values[HERO])})"
    return text


# ---- Figures -------------------------------------------------------------------------------------------------------


def steadiness(study: Study, results: Sequence[Result]) -> Figure:
    """The share of unstable scores of each method: of what is scored, and of G itself where that is scored too."""
    names = ["fid"] + ["fid" + OWN] * any(result.values("fid" + OWN) for result in results)
    averaged = any(result.run.config.ema_decay for result in results)
    titles = {"fid": "the moving average of G" if averaged else "G", "fid" + OWN: "G itself"}
    figure, axes = panels(len(names), 2, 0.24 * len(study.methods) + 1, sharex=True, sharey=True)
    found: dict[str, dict[str, float]] = {}
    for axis, name in zip(axes, names):
        for row, method in enumerate(study.methods):
            shares = [s for r in results if r.run.method == method and (s := unstable(r, name)) is not None]
            if shares:
                found.setdefault(name, {})[method] = statistics.fmean(shares)
                axis.barh(row, 100 * statistics.fmean(shares), color=COLOURS[method], alpha=0.8)
        axis.set_title(titles[name], fontsize=10)
    name_rows(axes[0], study.methods)
    figure.supxlabel(f"scores above {UNSTABLE:g} times the best one so far, %", fontsize=10)
    told = [
        f"of {titles[name]}: {extremes(shares, 'most for', 'least for', lambda share: f'{share:.0%}')}"
        for name, shares in found.items()
    ]
    text = f"The mean share over settings and seeds, {'; '.join(told)}." if told else "No run has been scored yet."
    return Figure("stability", "How often training falls back", figure, text)


def film(study: Study, results: Sequence[Result]) -> Figure:
    """Samples of the same z over training: a row a method, a column a step, of the first seed."""
    setting, seed = shown_setting(study), study.seeds[0]
    chosen = {r.run.method: r for r in results if (r.run.setting, r.run.seed) == (setting, seed)}
    steps = sorted({step for result in chosen.values() for step in grids_of(result)})
    steps = [steps[i * (len(steps) - 1) // (FRAMES - 1)] for i in range(FRAMES)] if len(steps) > FRAMES else steps
    shape = (len(study.methods), max(1, len(steps)))
    size = (WIDTH, 0.93 * len(study.methods) + 0.4)
    figure, axes = pyplot().subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for row, method in zip(axes, study.methods):
        grids = grids_of(chosen[method]) if method in chosen else {}
        for axis, step in zip(row, steps or [0]):
            show(axis, chosen.get(method) if step in grids else None, SEEN, 2, grids.get(step))
        row[0].set_ylabel(name_of(method), rotation=0, ha="right", va="center", fontsize=9)
    for axis, step in zip(axes[0], steps):
        axis.set_title(f"step {step:,}", fontsize=10)
    title = f"The same z over training, setting {setting}, seed {seed}"
    return Figure("film", title, figure, _on_film(chosen))


def _on_film(chosen: dict[str, Result]) -> str:
    """When each method was at its best, in these runs."""
    best = {name_of(m): (r.best["step"], r.run.config.total_steps) for m, r in chosen.items() if r.best and r.finished}
    early = [f"{name} (step {step:,})" for name, (step, last) in best.items() if step < 0.8 * last]
    if not best:
        return "No run is finished yet."
    text = f"Of these {len(best)} runs {len(early)} had their best FID before the last fifth of training"
    return text + (f": {', '.join(early)}." if early else ".")
