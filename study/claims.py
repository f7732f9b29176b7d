"""What Miyato et al. 2018 say of spectral normalization, and whether it holds in a study: a line a claim, computed."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .discriminator import ranks_used
from .drawing import HERO, name_of, number, shown_setting
from .grid import Study
from .methods import PAPER, SETTINGS
from .results import Interval, Result, by, interval
from .stability import ranks, steadied

FEW_DIRECTIONS = ("weight", "weight_clipping", "none")  # of D, which the paper expects these to use (section 3)


class Claim(NamedTuple):
    """A claim, where the paper makes it, whether it holds here (None: no difference), and the figure that says so.

    sure: whether it rests on several seeds and, where it is of means over them, 95 % intervals that lie apart.
    """

    words: str
    source: str
    holds: bool | None
    figure: str
    sure: bool = True


def claims(study: Study, results: Sequence[Result]) -> list[Claim]:
    """Those of the claims that this study's runs can say something of; none without spectral norm."""
    return [claim for check in CHECKS if (claim := check(study, results))]


def _of_optimizer(study: Study) -> bool:
    """Whether the study's settings are of the optimizer, as those that the paper's claims are about."""
    return len(study.settings) > 1 and all(set(settings) <= set(SETTINGS["A"]) for settings in study.table.values())


def _many(study: Study) -> bool:
    return len(study.seeds) > 1


def _less(one: float, other: float) -> bool | None:
    """Whether one is less; None where they are alike."""
    return None if math.isclose(one, other) else one < other


def _told(spread: Interval) -> str:
    """A mean and, of several seeds, its interval."""
    mean, low, high = map(number, spread[:3])
    return f"{mean} ({low} to {high})" if spread.count > 1 else mean


def _robust(study: Study, results: Sequence[Result]) -> Claim | None:
    words, source = "It is robust over the optimizer's settings", "section 4.1.1"
    every = [rank for rank in ranks(study, results, None) if rank.worst or rank.diverged]
    order = [rank for rank in every if rank.method in PAPER]
    own = next((rank for rank in order if rank.method == HERO), None)
    if not _of_optimizer(study) or own is None or len(order) < 2:
        return None
    if own.worst is None:
        return Claim(words, source, False, f"it diverged in {own.diverged} of {own.runs} runs")
    place = f"number {order.index(own) + 1} of {len(order)} methods of the paper"
    figure = f"the worst setting's FID, the mean over seeds, is {_told(own.worst)}, {place}"
    holds: bool | None = order[0] is own
    sure = False
    other = next(rank for rank in order if rank is not own)
    if other.worst:
        figure += f"; {name_of(other.method)}: {_told(other.worst)}"
        if own.diverged == other.diverged:
            holds, sure = _less(own.worst.mean, other.worst.mean), own.worst.apart(other.worst)
    later = [(rank.method, rank.worst.mean) for rank in every if rank.method not in PAPER and rank.worst]
    if later:  # ranked: the first is the best
        figure += f"; best of the methods not in the paper: {name_of(later[0][0])}, {number(later[0][1])}"
    return Claim(words, source, holds, figure, sure)


def _untuned(study: Study, results: Sequence[Result]) -> Claim | None:
    """By which factor the usual setting is worse than a method's best one, seed by seed."""
    usual, factors = shown_setting(study), {}
    for method, own in by([r for r in results if r.finished and r.last.get("fid")], "method").items():
        seeds = [{r.run.setting: r.last["fid"] for r in group} for group in by(own, "seed").values()]
        found = [fids[usual] / min(fids.values()) for fids in seeds if len(fids) == len(study.settings)]
        if method in PAPER and (spread := interval(found, logarithmic=True)):
            factors[method] = spread
    if not _of_optimizer(study) or HERO not in factors or len(factors) < 2:
        return None
    other = min((method for method in factors if method != HERO), key=lambda method: factors[method].mean)
    less, sure = _less(factors[HERO].mean, factors[other].mean), factors[HERO].apart(factors[other])
    figure = f"setting {usual} has {_told(factors[HERO])} times the FID of the best setting; the least of the "
    figure += f"paper's other methods: {name_of(other)}, {_told(factors[other])}"
    return Claim("It needs no tuning of the settings", "section 1", less, figure, sure)


def _spread(study: Study, results: Sequence[Result]) -> Claim | None:
    used = ranks_used([result for result in results if result.run.setting == shown_setting(study)])
    others = {method: used[method] for method in FEW_DIRECTIONS if method in used}
    if HERO not in used or not others:
        return None
    told = ", ".join(f"{name_of(method)} {share:.0%}" for method, share in others.items())
    figure = (
        f"the stable rank of D's weights is {used[HERO]:.0%} of the full one (setting {shown_setting(study)}); {told}"
    )
    spread = _less(max(others.values()), used[HERO])
    return Claim("D's singular values stay spread", "figure 3", spread, figure, _many(study))


def _bounded(study: Study, results: Sequence[Result]) -> Claim | None:
    """The paper's bound is of reshaped weights; a convolution's own norm is another one (docs/study.md)."""
    groups = by(results, "method")
    bounds = [bound for result in groups.get(HERO, []) for bound in result.series("upper_bound").values()]
    if not bounds:
        return None
    seen = {method: [g for r in its for g in r.series("lower_bound").values()] for method, its in groups.items()}
    steepest = {name_of(method): number(max(seen[method])) for method in (HERO, "none") if seen.get(method)}
    told = ", ".join(f"{value} under {name}" for name, value in steepest.items())
    figure = f"steepest gradient of any run: {told}; its layers' true norms allow {number(max(bounds))}"
    held = max(seen[HERO]) <= 1.0001
    return Claim("D's slope is at most 1 while it trains", "section 2.1", held, figure, _many(study) or not held)


def _stable(study: Study, results: Sequence[Result]) -> Claim | None:
    """By the scores that fell back and the runs that were lost: one verdict where they do not contradict each other."""
    found = {rank.method: rank for rank in ranks(study, results, None)}
    shares = {method: rank.unstable for method, rank in found.items() if rank.unstable is not None}
    without = [method for method in shares if method in PAPER and method != HERO]
    if HERO not in shares or not without:
        return None
    others = statistics.median(shares[method] for method in without)
    lost = {method: found[method].collapsed + found[method].diverged for method in (HERO, *without)}
    own, own_runs = lost[HERO], found[HERO].runs
    rest, rest_runs = sum(lost[m] for m in without), sum(found[m].runs for m in without)
    verdicts = {_less(shares[HERO], others), _less(own / own_runs, rest / rest_runs)} - {None}
    of = "the scores of its G itself" if steadied(results) != "fid" else "its scores"
    figure = f"{shares[HERO]:.0%} of {of} are above twice the best one so far, {others:.0%} under the paper's other "
    figure += f"methods (median); collapsed or diverged: {own} of {own_runs} runs, {rest} of {rest_runs}"
    holds = verdicts.pop() if len(verdicts) == 1 else None
    return Claim("It stabilizes training", "abstract", holds, figure, _many(study))


def _cheap(study: Study, results: Sequence[Result]) -> Claim | None:
    """The cost of a step as a multiple of no normalization's of the same setting and seed: the geometric mean.

    Runs of a seed are near in time, those of two seeds may be days and another speed of the machine apart.
    """
    factors = []
    for group in by(results, "setting", "seed").values():
        times = {result.run.method: seconds for result in group if (seconds := result.seconds_per_step)}
        if times.keys() >= {"none", HERO, "wgan_gp"}:
            factors.append((times[HERO] / times["none"], times["wgan_gp"] / times["none"]))
    if not factors:
        return None
    own, penalised = map(statistics.geometric_mean, zip(*factors))
    figure = f"a step takes {own:.2f} times as long as without, with WGAN-GP's penalty {penalised:.2f} times"
    less, source = _less(own, penalised), "section 4.1.2, figure 10"
    return Claim("It costs less than a gradient penalty", source, less, figure, _many(study))


CHECKS = (_robust, _untuned, _spread, _bounded, _stable, _cheap)


def rows(found: Sequence[Claim]) -> Iterator[list[str]]:
    """The table of claims, a row a claim, as the page takes it."""
    verdicts = {True: "holds here", False: "does not hold here", None: "no difference here"}
    for claim in found:
        verdict = verdicts[claim.holds] + ("" if claim.sure or claim.holds is None else ", not surely")
        yield [f"{claim.words} ({claim.source})", verdict, claim.figure]
