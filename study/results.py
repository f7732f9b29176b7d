"""The results of a study's runs, read from their directories, for its tables and figures."""

import json
import math
import operator
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evaluation.results.report import flat
from training.reporting.logger import BROKEN, read_stats
from utils.errors import UserError

from .grid import Run, Study
from .methods import METRICS
from .runs import Outcome, outcome

COLLAPSED = "the generator has collapsed"  # the words of diagnostics.warnings()
LEVEL = 0.95  # confidence of an interval
SUMMED = ("upper_bound", "lower_bound", "largest_sigma", "rank_used")  # summary of an audit, for tables


class Result(NamedTuple):
    """The outcome, statistics (lines of stats.jsonl) and audits {step: audit} of a run.

    tabled: read from a study's tables, which hold neither spectra nor samples.
    """

    run: Run
    outcome: Outcome
    stats: list[dict[str, Any]]
    audits: dict[int, dict[str, Any]]
    tabled: bool = False

    @property
    def finished(self) -> bool:
        return self.outcome.state == "finished"

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The lines with scores, ordered by step."""
        return [line for line in self.stats if line.get("fid") is not None]

    @property
    def last(self) -> dict[str, Any]:
        """The last scores, with warnings if they are of the final evaluation; {} without any."""
        if found := self.outcome.evaluation:
            also = {"departures": "; ".join(found["protocol"].get("departures", []))}
            also |= {"warnings": " ".join(found.get("warnings", []))}
            also |= {"inception_score_std": found["inception_score"]["std"]}
            return {"step": self.outcome.step, **flat(found), **also}
        return self.scored[-1] if self.scored else {}

    @property
    def best(self) -> dict[str, Any]:
        """The scores at the step with the lowest FID; {} without any."""
        return min([*filter(None, [self.last]), *self.scored], key=lambda line: line["fid"], default={})

    @property
    def collapsed(self) -> bool:
        """Whether the last scores have the warning of mode collapse."""
        return COLLAPSED in self.last.get("warnings", "")

    @property
    def final_audit(self) -> dict[str, Any] | None:
        """The audit at the end of training, or None."""
        return self.audits.get(self.run.config.total_steps)

    def series(self, name: str) -> dict[int, float]:
        """{step: value} of a statistic, a score (with the final evaluation) or a SUMMED number, ordered by step."""
        lines = self.audits.items() if name in SUMMED else [(line["step"], line) for line in self.stats]
        found = {step: line[name] for step, line in lines if line.get(name) is not None}
        if name in METRICS and self.last.get(name) is not None:
            found[self.last["step"]] = self.last[name]
        return dict(sorted(found.items()))

    @property
    def seconds_per_step(self) -> float | None:
        """The median over the log's intervals, without scoring and audits; None without any."""
        found = self.series("seconds_per_step").values()
        return statistics.median(found) if found else None


def read(run: Run, found: Outcome) -> Result:
    """Read the Result of a run with this Outcome. A run with damaged files counts as failed."""
    stats, audits, damage = [], {}, []
    try:
        stats = read_stats(run.run_dir)
    except (UserError, OSError) as error:
        damage.append(str(error))
    for path in sorted((run.run_dir / "audits").glob("step_*.json")):
        try:
            audit = summed(json.loads(path.read_text(encoding="utf-8")))
            audits[int(path.stem.removeprefix("step_"))] = {name: audit[name] for name in ("layers", *SUMMED)}
        except (OSError, ValueError, TypeError, LookupError) as error:
            damage.append(f"{path} is damaged: {error}")
    lost = {name: line[name] for line in stats for name in ("loss_D", "loss_G") if name in line}  # at the last line
    beyond = [f"{name} ended at {value:.3g}" for name, value in lost.items() if abs(value) > BROKEN]
    if damage:
        found = found._replace(state="failed", message="; ".join(damage))
    elif beyond and found.state == "finished":  # a NaN would have ended the run already
        found = found._replace(state="diverged", message=f"{' and '.join(beyond)}, beyond {BROKEN:,.0f}")
    return Result(run, found, stats, dict(sorted(audits.items())))


def stable_rank(values: Sequence[float]) -> float:
    """|W|_F^2 / sigma^2, from 1 to the rank: the number of directions used (Rudelson and Vershynin 2007)."""
    return sum(value**2 for value in values) / values[0] ** 2 if values[0] > 0 else 0.0


def summed(audit: dict[str, Any]) -> dict[str, Any]:
    """Add largest_sigma and rank_used to an audit: the latter is the mean of stable rank / full rank over weights."""
    spectra = [values for layer in audit["layers"] if len(values := layer["singular_values"]) > 1]
    used = [stable_rank(values) / len(values) for values in spectra if values[0] > 0]
    largest = max((layer["sigma_svd"] for layer in audit["layers"]), default=None)
    return audit | {"largest_sigma": largest, "rank_used": mean(used)}


def collect(runs: Iterable[Run], known: Mapping[str, Outcome]) -> list[Result]:
    """The Results of all runs that were started. known: {name: Outcome} of runs already looked at."""
    found = [(run, known.get(run.name) or outcome(run)) for run in runs]
    return [read(run, came_to) for run, came_to in found if came_to.state != "missing"]


def tally(words: Iterable[str]) -> str:
    """Count equal words: "3 finished, 1 diverged"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


# ---- Statistics over seeds -----------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over `count` seeds with its 95 % interval; low = high = mean for one seed."""

    mean: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides tuple.count()

    def apart(self, other: "Interval") -> bool:
        """Whether this interval and another one, both of several seeds, do not overlap."""
        return min(self.count, other.count) > 1 and (self.high < other.low or other.high < self.low)


Means = dict[tuple[str, str], Interval]  # by setting and method


def interval(values: Iterable[float], logarithmic: bool = False) -> Interval | None:
    """Student's t interval of the mean, or of the geometric mean if logarithmic; None without values."""
    from scipy import stats

    values = [math.log(max(value, 1e-12)) for value in values] if logarithmic else list(values)
    if not values:
        return None
    middle = low = high = statistics.fmean(values)
    if len(values) > 1 and (spread := stats.sem(values)) > 0:
        low, high = stats.t.interval(LEVEL, len(values) - 1, loc=middle, scale=spread)
    middle, low, high = (math.exp(x) if logarithmic else float(x) for x in (middle, low, high))
    return Interval(middle, low, high, len(values))


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None without any."""
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


def by(results: Iterable[Result], *names: str) -> dict[Any, list[Result]]:
    """Group results by fields of their Run: {value, or tuple of values for several names: [results]}."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(operator.attrgetter(*names)(result.run), []).append(result)
    return groups


def means(results: Iterable[Result], metric: str) -> Means:
    """{(setting, method): Interval} of the last scores of finished runs, geometric if the metric's log is set."""
    groups = by([r for r in results if r.finished and r.last.get(metric) is not None], "setting", "method")
    found = {key: interval([r.last[metric] for r in its], METRICS[metric].log) for key, its in groups.items()}
    return {key: spread for key, spread in found.items() if spread}


def over_settings(
    study: Study, results: Iterable[Result], metric: str, pick: Callable[[Iterable[float]], float]
) -> Interval | None:
    """The interval over seeds of pick(last scores of a seed in all settings). results: of one method.

    Seeds without a finished run in every setting are left out, since their worst setting is unknown.
    """
    there = by([result for result in results if result.finished and result.last.get(metric) is not None], "seed")
    whole = [group for group in there.values() if len(group) == len(study.settings)]
    return interval([pick([result.last[metric] for result in group]) for group in whole], METRICS[metric].log)
