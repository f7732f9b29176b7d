"""What Miyato et al. 2018 say of spectral normalization, and whether it holds in a study: a line a claim, computed."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .discriminator import ranks_used
from .drawing import HERO, name_of, number, shown_setting
from .grid import Study
from .methods import METHODS, SETTINGS
from .results import Result, by, means, worst_cases
from .stability import steadied, unstable

COMPARED = ("weight", "weight_clipping", "none")  # which the paper expects to use few directions (section 3)


class Claim(NamedTuple):
    """A claim, where the paper makes it, whether it holds here (None: no difference), and the figure that says so."""

    words: str
    source: str
    holds: bool | None
    figure: str


def claims(study: Study, results: Sequence[Result]) -> list[Claim]:
    """Those of the claims that this study's runs can say something of; none without spectral norm."""
    return [claim for check in CHECKS if (claim := check(study, results))]


def _of_optimizer(study: Study) -> bool:
    """Whether the study's settings are of the optimizer, as those that the paper's claims are about."""
    return all(set(settings) <= set(SETTINGS["A"]) for settings in study.table.values())


def _less(one: float, other: float) -> bool | None:
    """Whether one is less; None where they are alike."""
    return None if math.isclose(one, other) else one < other


def _robust(study: Study, results: Sequence[Result]) -> Claim | None:
    worst = worst_cases(study, means(results, "fid"), "fid")
    if not _of_optimizer(study) or HERO not in worst or len(study.settings) < 2 or len(worst) < 2:
        return None
    place, best = [*worst].index(HERO) + 1, next(iter(worst))
    figure = f"its worst setting has a mean FID of {number(worst[HERO])}, number {place} of {len(worst)}"
    if place > 1:
        figure += f"; {name_of(best)}: {number(worst[best])}"
    return Claim("It is robust over the optimizer's settings", "figure 1", place == 1, figure)


def _untuned(study: Study, results: Sequence[Result]) -> Claim | None:
    """By which factor the usual setting is worse than a method's best one."""
    found, usual = means(results, "fid"), shown_setting(study)
    factors = {}
    for method in study.methods:
        own = {setting: spread.mean for (setting, name), spread in found.items() if name == method}
        if usual in own and len(own) == len(study.settings) > 1:
            factors[method] = own[usual] / min(own.values())
    if not _of_optimizer(study) or HERO not in factors or len(factors) < 2:
        return None
    least = min(factors, key=lambda method: factors[method])
    others = statistics.median(factor for method, factor in factors.items() if method != HERO)
    figure = f"setting {usual} is {factors[HERO]:.2f} times its best one's FID, the others' {others:.2f} (median)"
    first = math.isclose(factors[HERO], factors[least])
    figure += "" if first else f"; least for {name_of(least)}, {factors[least]:.2f}"
    holds = None if math.isclose(min(factors.values()), max(factors.values())) else first
    return Claim("It needs no tuning of the settings", "section 1", holds, figure)


def _spread(study: Study, results: Sequence[Result]) -> Claim | None:
    used = ranks_used([result for result in results if result.run.setting == shown_setting(study)])
    others = {method: used[method] for method in COMPARED if method in used}
    if HERO not in used or not others:
        return None
    told = ", ".join(f"{name_of(method)} {share:.0%}" for method, share in others.items())
    figure = f"the stable rank of D's weights is {used[HERO]:.0%} of the full one; {told}"
    return Claim(
        "D's singular values stay spread", "section 3, figure 3", _less(max(others.values()), used[HERO]), figure
    )


def _bounded(study: Study, results: Sequence[Result]) -> Claim | None:
    pairs = [
        (audit["lower_bound"], audit["upper_bound"])
        for result in results
        if result.run.method == HERO
        for audit in result.audits.values()
        if audit["upper_bound"] is not None
    ]
    if not pairs:
        return None
    steepest, bound = (max(values) for values in zip(*pairs))
    held = sum(lower <= upper * 1.0001 for lower, upper in pairs)
    figure = f"the steepest gradient seen is {number(steepest)}, the largest bound {number(bound)}; it holds in "
    figure += f"{held} of {len(pairs)} audits (the paper's own bound, 1, is of the reshaped weights)"
    return Claim("D's slope is bounded while it trains", "section 2.1", held == len(pairs), figure)


def _stable(study: Study, results: Sequence[Result]) -> Claim | None:
    name = steadied(results)
    shares = {
        method: statistics.fmean(found)
        for (method,), group in by(results, "method").items()
        if (found := [share for result in group if (share := unstable(result, name)) is not None])
    }
    without = [share for method, share in shares.items() if "spectral" not in METHODS[method].settings["d_norm"]]
    if HERO not in shares or not without:
        return None
    others = statistics.median(without)
    of = "the scores of its G itself" if name != "fid" else "its scores"
    figure = (
        f"{shares[HERO]:.0%} of {of} are above twice the best one so far, {others:.0%} without spectral norm (median)"
    )
    return Claim("It stabilizes training", "abstract", _less(shares[HERO], others), figure)


def _cheap(study: Study, results: Sequence[Result]) -> Claim | None:
    """The cost of a step as a multiple of no normalization's, the geometric mean over settings."""
    medians = {
        key: statistics.median(times)
        for key, group in by(results, "method", "setting").items()
        if (times := [result.seconds_per_step for result in group if result.seconds_per_step])
    }

    def cost(method: str) -> float | None:
        pairs = [(medians.get((method, name)), medians.get(("none", name))) for name in study.settings]
        logs = [math.log(own / plain) for own, plain in pairs if own and plain]
        return math.exp(statistics.fmean(logs)) if logs else None

    own, penalised = cost(HERO), cost("wgan_gp")
    if own is None or penalised is None:
        return None
    figure = f"a step takes {own:.2f} times as long as without, with WGAN-GP's penalty {penalised:.2f} times"
    return Claim("It costs less than a gradient penalty", "section 4.1.2, figure 10", _less(own, penalised), figure)


CHECKS = (_robust, _untuned, _spread, _bounded, _stable, _cheap)


def rows(found: Sequence[Claim]) -> Iterator[list[str]]:
    """The table of claims, a row a claim, as the page takes it."""
    verdicts = {True: "holds here", False: "does not hold here", None: "no difference here"}
    for claim in found:
        yield [f"{claim.words} ({claim.source})", verdicts[claim.holds], claim.figure]
