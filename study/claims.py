"""Claims of Miyato et al. 2018 about spectral normalization, checked against the runs of a study."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .drawing import HERO, name_of, number, shown_setting
from .grid import Study
from .methods import PAPER, SETTINGS
from .results import LEVEL, Interval, Result, by, interval, mean
from .stability import ranks, steadied, unstable

FEW_DIRECTIONS = ("weight", "weight_clipping", "none")  # their D uses few directions, the paper expects (section 3)
LEARNT = 2 / 3  # a run has learnt something if its FID falls to this share of the first


class Claim(NamedTuple):
    """A claim, its place in the paper, whether it holds here (None: no difference), and the numbers behind that.

    sure: the verdict rests on several seeds, and on 95 % intervals that do not overlap with those of the methods it is
    compared with. For counts, Fisher's exact test must find chance as unlikely.
    """

    words: str
    source: str
    holds: bool | None
    figure: str
    sure: bool = True


def claims(study: Study, results: Sequence[Result]) -> list[Claim]:
    """Check all claims that this study's runs can test; none without spectral norm."""
    return [claim for check in CHECKS if (claim := check(study, results))]


def _of_optimizer(study: Study) -> bool:
    """Whether the study has several settings, all of the optimizer, as in the paper."""
    return len(study.settings) > 1 and all(set(settings) <= set(SETTINGS["A"]) for settings in study.table.values())


def _many(study: Study) -> bool:
    return len(study.seeds) > 1


def learnt(results: Iterable[Result]) -> bool:
    """Whether FID fell to LEARNT of its first value in half of the scored runs."""
    fids = [list(found) for result in results if (found := result.series("fid").values())]
    return 2 * sum(min(found) <= LEARNT * found[0] and len(found) > 1 for found in fids) >= len(fids)


def _over_seeds(results: Iterable[Result], value: Callable[[Result], float | None]) -> dict[str, Interval]:
    """{method: interval over seeds of the seed's mean value}, for methods that have values."""
    found: dict[str, list[float]] = {}
    for (method, _), group in by(results, "method", "seed").items():
        if (of_seed := mean(map(value, group))) is not None:
            found.setdefault(method, []).append(of_seed)
    return {method: spread for method, values in found.items() if (spread := interval(values))}


def _less(one: float, other: float) -> bool | None:
    """Whether one is less than the other; None if they are equal."""
    return None if math.isclose(one, other) else one < other


def _told(spread: Interval, form: Callable[[float], str] = number) -> str:
    """Format a mean and, for several seeds, its interval."""
    mean, low, high = map(form, spread[:3])
    return f"{mean} ({low} to {high})" if spread.count > 1 else mean


def _share(value: float) -> str:
    return f"{min(max(value, 0), 1):.0%}"  # Student's interval may leave [0, 1]


def _apart(own: Interval, ranked: Sequence[Interval | None], first: bool | None) -> bool:
    """Whether an interval lies apart from all others or, if not first, from the first."""
    return all(other is not None and own.apart(other) for other in (ranked if first else ranked[:1]))


def _robust(study: Study, results: Sequence[Result]) -> Claim | None:
    words, source = "It is robust over the optimizer's settings", "section 4.1.1"
    every = [rank for rank in ranks(study, results, None) if rank.worst or rank.diverged]
    order = [rank for rank in every if rank.method in PAPER]
    own = next((rank for rank in order if rank.method == HERO), None)
    if not _of_optimizer(study) or own is None or len(order) < 2:
        return None
    if own.worst is None:
        return Claim(words, source, False, f"it diverged in {own.diverged} of {own.runs} runs", _many(study))
    place = f"number {order.index(own) + 1} of {len(order)} methods of the paper"
    figure = f"the worst setting's FID, the mean over seeds, is {_told(own.worst)}, {place}"
    holds: bool | None = order[0] is own
    others = [rank for rank in order if rank is not own]
    if worst := others[0].worst:
        figure += f"; {name_of(others[0].method)}: {_told(worst)}"
        if own.diverged == others[0].diverged:
            holds = _less(own.worst.mean, worst.mean)
    sure = own.diverged == 0 and _apart(own.worst, [rank.worst for rank in others], holds)
    later = [(rank.method, rank.worst.mean) for rank in every if rank.method not in PAPER and rank.worst]
    if later:  # ranked: the first is the best
        figure += f"; best of the methods not in the paper: {name_of(later[0][0])}, {number(later[0][1])}"
    return Claim(words, source, holds, figure, sure)


def _untuned(study: Study, results: Sequence[Result]) -> Claim | None:
    """Compare the FID of the usual setting with that of a method's best, per seed."""
    usual, factors = shown_setting(study), {}
    for method, its in by([r for r in results if r.finished and r.last.get("fid")], "method").items():
        seeds = [{r.run.setting: r.last["fid"] for r in group} for group in by(its, "seed").values()]
        found = [fids[usual] / min(fids.values()) for fids in seeds if len(fids) == len(study.settings)]
        if method in PAPER and (spread := interval(found, logarithmic=True)):
            factors[method] = spread
    if not _of_optimizer(study) or HERO not in factors or len(factors) < 2:
        return None
    own = factors.pop(HERO)
    other, least = min(factors.items(), key=lambda item: item[1].mean)
    less = _less(own.mean, least.mean)
    figure = f"setting {usual} has {_told(own)} times the FID of the best setting; lowest ratio of the "
    figure += f"paper's other methods: {name_of(other)}, {_told(least)}"
    sure = _apart(own, [least, *factors.values()], less)
    return Claim("It needs no tuning of the settings", "section 1", less, figure, sure)


def _spread(study: Study, results: Sequence[Result]) -> Claim | None:
    shown = [result for result in results if result.run.setting == shown_setting(study)]
    used = _over_seeds(shown, lambda result: (result.final_audit or {}).get("rank_used"))
    others = {method: used[method] for method in FEW_DIRECTIONS if method in used}
    if HERO not in used or not others:
        return None
    told = ", ".join(f"{name_of(method)} {_told(share, _share)}" for method, share in others.items())
    figure = f"the stable rank of D's weights is {_told(used[HERO], _share)} of the full one "
    figure += f"(setting {shown_setting(study)}); {told}"
    ranked = sorted(others.values(), key=lambda share: -share.mean)
    spread = _less(ranked[0].mean, used[HERO].mean)
    return Claim("D's singular values stay spread", "figure 3", spread, figure, _apart(used[HERO], ranked, spread))


def _bounded(study: Study, results: Sequence[Result]) -> Claim | None:
    """One steeper gradient refutes the claim; only the layers' true norms, not the reshaped weights', prove it."""
    groups = by(results, "method")
    bounds = [bound for result in groups.get(HERO, []) for bound in result.series("upper_bound").values()]
    if not bounds:
        return None
    seen = {method: [g for r in its for g in r.series("lower_bound").values()] for method, its in groups.items()}
    steepest = {name_of(method): number(max(seen[method])) for method in (HERO, "none") if seen.get(method)}
    told = ", ".join(f"{value} under {name}" for name, value in steepest.items())
    figure = f"steepest gradient of any run: {told}; its layers' true norms allow {number(max(bounds))}"
    held = max(seen[HERO]) <= 1.0001
    sure = not held or (_many(study) and max(bounds) <= 1.0001)
    return Claim("D's slope is at most 1 while it trains", "section 2.1", held, figure, sure)


def _stable(study: Study, results: Sequence[Result]) -> Claim | None:
    """Compare unstable scores and lost runs; without a verdict if the two contradict each other.

    The share of unstable scores is compared with the median of the paper's other methods, the number of lost runs by
    Fisher's exact test, which assumes independent runs. Sure if each of the two that shows a difference is sure.
    """
    from scipy.stats import fisher_exact

    found, name = {rank.method: rank for rank in ranks(study, results, None)}, steadied(results)
    shares = _over_seeds([r for r in results if r.run.method in PAPER], lambda result: unstable(result, name))
    own, ranked = shares.pop(HERO, None), sorted(shares, key=lambda method: shares[method].mean)
    if own is None or not ranked:
        return None
    median = ranked[(len(ranked) - 1) // 2]
    less = _less(own.mean, shares[median].mean)

    sides = [[found[method] for method in methods] for methods in ([HERO], ranked)]
    runs, lost = zip(*[(sum(r.runs for r in side), sum(r.collapsed + r.diverged for r in side)) for side in sides])
    fewer = _less(lost[0] / runs[0], lost[1] / runs[1])
    table = [[gone, count - gone] for gone, count in zip(lost, runs)]
    chance = float(fisher_exact(table, alternative="greater" if fewer is False else "less").pvalue)
    both = [(less, own.apart(shares[median])), (fewer, _many(study) and chance < (1 - LEVEL) / 2)]
    verdicts, sure = zip(*[pair for pair in both if pair[0] is not None] or [(None, False)])
    of = "the scores of its G itself" if name != "fid" else "its scores"
    figure = f"{_told(own, _share)} of {of} are above twice the best one so far; the median of the paper's other "
    figure += f"methods: {name_of(median)}, {_told(shares[median], _share)}; collapsed or diverged: {lost[0]} of "
    figure += f"{runs[0]} runs, {lost[1]} of {runs[1]} (one-sided Fisher p = {chance:.2g})"
    holds = verdicts[0] if len({*verdicts}) == 1 else None
    return Claim("It stabilizes training", "abstract", holds, figure, all(sure))


def _cheap(study: Study, results: Sequence[Result]) -> Claim | None:
    """Compare the time of a step, relative to no normalization in the same setting and seed.

    Runs of one seed are close in time; those of two seeds may be days apart, on a machine of another speed.
    """
    factors: dict[int, list[tuple[float, float]]] = {}
    for (_, seed), group in by(results, "setting", "seed").items():
        times = {result.run.method: seconds for result in group if (seconds := result.seconds_per_step)}
        if times.keys() >= {"none", HERO, "wgan_gp"}:
            factors.setdefault(seed, []).append((times[HERO] / times["none"], times["wgan_gp"] / times["none"]))
    of_seeds = ([statistics.geometric_mean(pair) for pair in zip(*pairs)] for pairs in factors.values())
    own, penalised = (interval(found, logarithmic=True) for found in zip(*of_seeds)) if factors else (None, None)
    if own is None or penalised is None:
        return None
    told = [_told(spread, "{:.2f}".format) for spread in (own, penalised)]
    figure = f"a step takes {told[0]} times as long as without it, and {told[1]} times with WGAN-GP's penalty"
    less, source = _less(own.mean, penalised.mean), "section 4.1.2, figure 10"
    return Claim("It costs less than a gradient penalty", source, less, figure, own.apart(penalised))


CHECKS = (_robust, _untuned, _spread, _bounded, _stable, _cheap)


def rows(found: Sequence[Claim], results: Sequence[Result]) -> Iterator[list[str]]:
    """The rows of the table of claims; no verdicts if the runs learnt too little."""
    verdicts = {True: "holds here", False: "does not hold here", None: "no difference here"}
    for claim in found:
        verdict = verdicts[claim.holds] + ("" if claim.sure or claim.holds is None else " (uncertain)")
        verdict = verdict if learnt(results) else "no verdict: the runs have learnt too little"
        yield [f"{claim.words} ({claim.source})", verdict, claim.figure]
