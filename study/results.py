"""What the runs of a study came to, read from their directories: what its tables and figures are made of."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evaluation.results.report import flat
from training.reporting.logger import read_stats
from utils.errors import UserError

from .grid import Run, Study
from .methods import METRICS
from .runs import Outcome, outcome

COLLAPSED = "the generator has collapsed"  # as diagnostics.warnings() says it
LEVEL = 0.95  # of an interval
AUDITED = {"layers", "upper_bound", "lower_bound"}  # what an audit has to hold, and each layer in it
SUMMED = ("upper_bound", "lower_bound", "largest_sigma", "rank_used")  # an audit in numbers, for tables
AUDITED_LAYER = {"name", "kind", "weight", "sigma_power_iteration", "sigma_svd", "operator_norm", "singular_values"}


class Result(NamedTuple):
    """A run, what it came to, its lines of statistics and its audits {step: audit}.

    tabled: it was read from a study's tables, which hold neither spectra nor samples.
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
        """The lines with scores, in the order of their steps."""
        return [line for line in self.stats if line.get("fid") is not None]

    @property
    def last(self) -> dict[str, Any]:
        """The scores at the last step that was scored, and where it is an evaluation its warnings; {} without any."""
        if found := self.outcome.evaluation:
            also = {"departures": "; ".join(found["protocol"].get("departures", []))}
            also |= {"warnings": " ".join(found.get("warnings", []))}
            also |= {"inception_score_std": found["inception_score"]["std"]}
            return {"step": self.outcome.step, **flat(found), **also}
        return self.scored[-1] if self.scored else {}

    @property
    def best(self) -> dict[str, Any]:
        """The scores at the step with the lowest FID; {} where none was scored."""
        return min([*filter(None, [self.last]), *self.scored], key=lambda line: line["fid"], default={})

    @property
    def collapsed(self) -> bool:
        """Whether its last scores warn that the generator draws nearly one image."""
        return COLLAPSED in self.last.get("warnings", "")

    @property
    def final_audit(self) -> dict[str, Any] | None:
        """The audit at the end of training; None before that."""
        return self.audits.get(self.run.config.total_steps)

    def values(self, name: str) -> list[tuple[int, float]]:
        """[(step, value)] of a statistic, where it has one; of a score, the last one too, whenever that was."""
        found = {line["step"]: line[name] for line in self.stats if line.get(name) is not None}
        if name in METRICS and self.last.get(name) is not None:
            found[self.last["step"]] = self.last[name]
        return sorted(found.items())

    @property
    def seconds_per_step(self) -> float | None:
        """The median over the log's intervals, which leave out scoring and audits."""
        found = [seconds for _, seconds in self.values("seconds_per_step")]
        return statistics.median(found) if found else None


def read(run: Run, found: Outcome) -> Result:
    """The Result of a run with this Outcome. One whose files are damaged has failed, with what could be read of it."""
    stats, audits, damage = [], {}, []
    try:
        stats = read_stats(run.run_dir)
    except (UserError, OSError) as error:
        damage.append(str(error))
    for path in sorted((run.run_dir / "audits").glob("step_*.json")):
        try:
            audit = json.loads(path.read_text(encoding="utf-8"))
            if not (set(audit) >= AUDITED and all(set(layer) >= AUDITED_LAYER for layer in audit["layers"])):
                raise ValueError("no audit")
            audits[int(path.stem.removeprefix("step_"))] = summed(audit)
        except (OSError, ValueError, TypeError) as error:
            damage.append(f"{path} is damaged: {error}")
    if damage:
        found = found._replace(state="failed", message="; ".join(damage))
    return Result(run, found, stats, dict(sorted(audits.items())))


def stable_rank(values: Sequence[float]) -> float:
    """|W|_F^2 / sigma^2, from 1 to the rank: how many directions a weight uses (Rudelson and Vershynin 2007)."""
    return sum(value**2 for value in values) / values[0] ** 2 if values[0] > 0 else 0.0


def summed(audit: dict[str, Any]) -> dict[str, Any]:
    """An audit with its largest singular value, and how much of its rank D uses.

    That is stable rank over full rank, the mean over the weights of more than one singular value.
    """
    spectra = [values for layer in audit["layers"] if len(values := layer["singular_values"]) > 1]
    used = [stable_rank(values) / len(values) for values in spectra if values[0] > 0]
    largest = max((layer["sigma_svd"] for layer in audit["layers"]), default=None)
    return audit | {"largest_sigma": largest, "rank_used": statistics.fmean(used) if used else None}


def collect(runs: Iterable[Run], known: Mapping[str, Outcome]) -> list[Result]:
    """The Results of those of the runs that were started. known: {name: Outcome} where it is known already."""
    found = [(run, known.get(run.name) or outcome(run)) for run in runs]
    return [read(run, came_to) for run, came_to in found if came_to.state != "missing"]


def tally(words: Iterable[str]) -> str:
    """How often each is among them: "3 finished, 1 diverged"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


# ---- Statistics over seeds -----------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over so many seeds, and where it lies with 95 % confidence; the mean itself, twice, for one seed."""

    mean: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides tuple.count()


def interval(values: Iterable[float], logarithmic: bool = False) -> Interval | None:
    """Student's t interval of the mean of values, or of their geometric mean; None without values."""
    from scipy import stats

    values = [math.log(max(value, 1e-12)) for value in values] if logarithmic else list(values)
    if not values:
        return None
    mean = statistics.fmean(values)
    low = high = mean
    if len(values) > 1 and (spread := stats.sem(values)) > 0:
        low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=spread)
    mean, low, high = (math.exp(x) if logarithmic else float(x) for x in (mean, low, high))
    return Interval(mean, low, high, len(values))


def by(results: Iterable[Result], *names: str) -> dict[tuple[Any, ...], list[Result]]:
    """Results in groups: {(value of each name): [results]}, names being those of a Run."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result.run, name) for name in names), []).append(result)
    return groups


def means(results: Iterable[Result], metric: str) -> dict[tuple[Any, ...], Interval]:
    """{(setting, method): Interval} of the last scores of the finished runs; geometric where METRICS says so."""
    groups = by([r for r in results if r.finished and r.last.get(metric) is not None], "setting", "method")
    found = {key: interval([r.last[metric] for r in group], METRICS[metric].log) for key, group in groups.items()}
    return {key: spread for key, spread in found.items() if spread}


def worst_cases(study: Study, found: dict[tuple[Any, ...], Interval], metric: str) -> dict[str, float]:
    """The worst mean over the settings of each method that has one in all of them: {method: mean}, best first.

    found: what means() gave.
    """
    badness = METRICS[metric].badness
    settings = {setting for setting, _ in found}
    worst = {}
    for method in study.methods:
        own = [found[setting, method].mean for setting in settings if (setting, method) in found]
        if own and len(own) == len(settings):
            worst[method] = max(own, key=badness)
    return dict(sorted(worst.items(), key=lambda item: badness(item[1])))
