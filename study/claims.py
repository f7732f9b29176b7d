"""What Miyato et al. 2018 say of spectral normalization, and whether it holds in a study: a line a claim, computed."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .discriminator import ranks_used
from .drawing import HERO, name_of, number, shown_setting
from .grid import Study
from .methods import METHODS, PAPER, SETTINGS
from .results import Interval, Result, by, interval, tally
from .stability import ranks, steadied, unstable

FEW_DIRECTIONS = ("weight", "weight_clipping", "none")  # of D, which the paper expects these to use (section 3)


class Claim(NamedTuple):
    """A claim, where the paper makes it, whether it holds here (None: no difference), and the figure that says so.

    sure: whether the 95 % intervals over seeds that it rests on lie apart; so a single seed makes nothing sure.
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


def _less(one: float, other: float) -> bool | None:
    """Whether one is less; None where they are alike."""
    return None if math.isclose(one, other) else one < other


def _least(found: Mapping[str, Interval]) -> tuple[bool | None, bool, str]:
    """Whether spectral norm has the least of the methods' values, whether that is sure, and the best other method."""
    other = min((method for method in found if method != HERO), key=lambda method: found[method].mean)
    own, least = found[HERO], found[other]
    apart = own.high < least.low or least.high < own.low
    return _less(own.mean, least.mean), apart and min(own.count, least.count) > 1, other


def _told(spread: Interval, show: str = "") -> str:
    """A mean and, of several seeds, its interval."""
    mean, low, high = (f"{value:{show}}" if show else number(value) for value in spread[:3])
    return f"{mean} ({low} to {high})" if spread.count > 1 else mean


def _robust(study: Study, results: Sequence[Result]) -> Claim | None:
    order = [rank for rank in ranks(study, results, None) if rank.worst]
    worst = {rank.method: rank.worst for rank in order if rank.method in PAPER and rank.worst}
    if not _of_optimizer(study) or HERO not in worst or len(worst) < 2:
        return None
    _, sure, other = _least(worst)
    place = [*worst].index(HERO) + 1
    words = "each seed's worst setting has a mean FID of" if worst[HERO].count > 1 else "its worst setting has a FID of"
    figure = f"{words} {_told(worst[HERO])}, number {place} of {len(worst)} methods of the paper"
    figure += f"; {name_of(other)}: {_told(worst[other])}"
    later = {rank.method: rank.worst.mean for rank in order if rank.method not in PAPER and rank.worst}
    if later:
        best = min(later, key=lambda method: later[method])
        figure += f"; beside them {name_of(best)}: {number(later[best])}"
    if lost := [rank.method for rank in order if rank.diverged]:
        figure += f"; last are those that diverged: {', '.join(map(name_of, lost))}"
    return Claim("It is robust over the optimizer's settings", "section 4.1.1", place == 1, figure, sure)


def _untuned(study: Study, results: Sequence[Result]) -> Claim | None:
    """By which factor the usual setting is worse than a method's best one, seed by seed."""
    usual, factors = shown_setting(study), {}
    for (method,), own in by([r for r in results if r.finished and r.last.get("fid")], "method").items():
        seeds = [{r.run.setting: r.last["fid"] for r in group} for group in by(own, "seed").values()]
        found = [fids[usual] / min(fids.values()) for fids in seeds if len(fids) == len(study.settings)]
        if method in PAPER and (spread := interval(found, logarithmic=True)):
            factors[method] = spread
    if not _of_optimizer(study) or HERO not in factors or len(factors) < 2:
        return None
    less, sure, other = _least(factors)
    figure = f"setting {usual} has {_told(factors[HERO], '.2f')} times the FID of the best setting; the least of the "
    figure += f"paper's other methods: {name_of(other)}, {_told(factors[other], '.2f')}"
    return Claim("It needs no tuning of the settings", "section 1", less, figure, sure)


def _spread(study: Study, results: Sequence[Result]) -> Claim | None:
    used = ranks_used([result for result in results if result.run.setting == shown_setting(study)])
    others = {method: used[method] for method in FEW_DIRECTIONS if method in used}
    if HERO not in used or not others:
        return None
    told = ", ".join(f"{name_of(method)} {share:.0%}" for method, share in others.items())
    figure = f"the stable rank of D's weights is {used[HERO]:.0%} of the full one; {told}"
    return Claim("D's singular values stay spread", "figure 3", _less(max(others.values()), used[HERO]), figure)


def _bounded(study: Study, results: Sequence[Result]) -> Claim | None:
    """The paper's bound is of reshaped weights; a convolution's own norm is another one (docs/study.md)."""
    audits = {
        method: [audit for result in group for audit in result.audits.values()]
        for (method,), group in by(results, "method").items()
    }
    bounds = [audit["upper_bound"] for audit in audits.get(HERO, []) if audit["upper_bound"] is not None]
    if not bounds:
        return None
    steepest = {method: max(audit["lower_bound"] for audit in found) for method, found in audits.items() if found}
    figure = (
        f"the steepest gradient seen is {number(steepest[HERO])}, the layers' true norms allow {number(max(bounds))}"
    )
    if "none" in steepest:
        figure += f"; without normalization {number(steepest['none'])} was seen"
    return Claim("D's slope is at most 1 while it trains", "section 2.1", steepest[HERO] <= 1, figure)


def _stable(study: Study, results: Sequence[Result]) -> Claim | None:
    name, shares = steadied(results), {}
    for (method,), group in by(results, "method").items():
        if found := [share for result in group if (share := unstable(result, name)) is not None]:
            shares[method] = statistics.fmean(found)
    without = [method for method in shares if "spectral" not in METHODS[method].settings["d_norm"]]
    if HERO not in shares or not without:
        return None
    others = statistics.median(shares[method] for method in without)
    of = "the scores of its G itself" if name != "fid" else "its scores"
    figure = f"{shares[HERO]:.0%} of {of} are above twice the best one so far, {others:.0%} without spectral norm "
    figure += f"(median over methods); {_lost(results, [HERO])}, without it {_lost(results, without)}"
    return Claim("It stabilizes training", "abstract", _less(shares[HERO], others), figure)


def _lost(results: Sequence[Result], methods: Sequence[str]) -> str:
    """How many runs of these methods collapsed or diverged, in words."""
    own = [result for result in results if result.run.method in methods]
    words = ["collapsed" for result in own if result.collapsed]
    words += ["diverged" for result in own if result.outcome.state == "diverged"]
    return f"{tally(words) or 'none collapsed'} of {len(own)} runs"


def _cheap(study: Study, results: Sequence[Result]) -> Claim | None:
    """The cost of a step as a multiple of no normalization's, the geometric mean over settings that all three have."""
    times = {
        key: statistics.median(found)
        for key, group in by(results, "setting", "method").items()
        if (found := [result.seconds_per_step for result in group if result.seconds_per_step])
    }
    methods = (HERO, "wgan_gp", "none")
    whole = [setting for setting in study.settings if all((setting, method) in times for method in methods)]
    if not whole:
        return None
    own, penalised = (
        math.exp(statistics.fmean(math.log(times[setting, method] / times[setting, "none"]) for setting in whole))
        for method in methods[:2]
    )
    figure = f"a step takes {own:.2f} times as long as without, with WGAN-GP's penalty {penalised:.2f} times"
    return Claim("It costs less than a gradient penalty", "section 4.1.2, figure 10", _less(own, penalised), figure)


CHECKS = (_robust, _untuned, _spread, _bounded, _stable, _cheap)


def rows(found: Sequence[Claim]) -> Iterator[list[str]]:
    """The table of claims, a row a claim, as the page takes it."""
    verdicts = {True: "holds here", False: "does not hold here", None: "no difference here"}
    for claim in found:
        verdict = verdicts[claim.holds] + ("" if claim.sure or claim.holds is None else ", not surely")
        yield [f"{claim.words} ({claim.source})", verdict, claim.figure]
