"""What the runs of a study came to, read from their directories: results.csv, and what the figures are drawn of."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.manifold import SCORES as NEIGHBOURHOODS
from evaluation.report import csv_text, flat
from training.logger import read_stats
from utils.errors import UserError
from utils.files import write_text

from .grid import Run, Study
from .methods import METRICS
from .runs import Outcome, outcome

COLUMNS = [
    *("run", "method", "setting", "seed", "outcome", "message", "reached"),
    *("last_step", "inception_score", "inception_score_std", "fid", "kid", *NEIGHBOURHOODS, "modes", "modes_kl"),
    *("classes_missing", "nearer"),
    *("best_step", *(f"{name}_at_best" for name in METRICS), "protocol", "departures"),
    *("largest_sigma", "upper_bound", "lower_bound", "seconds", "seconds_per_step", "device", "threads"),
    *("commit", "warnings"),
]
COLLAPSED = "the generator has collapsed"  # as diagnostics.warnings() says it
LEVEL = 0.95  # of an interval
AUDITED = {"layers", "upper_bound", "lower_bound"}  # what an audit has to hold, and each layer in it
AUDITED_LAYER = {"name", "kind", "weight", "sigma_power_iteration", "sigma_svd", "operator_norm", "singular_values"}


class Result(NamedTuple):
    """A run, what it came to, its lines of statistics and its audits {step: audit}."""

    run: Run
    outcome: Outcome
    stats: list[dict[str, Any]]
    audits: dict[int, dict[str, Any]]

    @property
    def finished(self) -> bool:
        return self.outcome.state == "finished"

    @property
    def scored(self) -> list[dict[str, Any]]:
        """The lines with scores, in the order of their steps."""
        return [line for line in self.stats if line.get("fid") is not None]

    @property
    def last(self) -> dict[str, Any]:
        """The scores at the last step that was scored; {} where none was."""
        if self.outcome.evaluation:
            return {"step": self.outcome.step, **flat(self.outcome.evaluation)}
        return self.scored[-1] if self.scored else {}

    @property
    def best(self) -> dict[str, Any]:
        """The scores at the step with the lowest FID; {} where none was scored."""
        return min([*self.scored, *filter(None, [self.last])], key=lambda line: line["fid"], default={})

    @property
    def collapsed(self) -> bool:
        """Whether its last scores warn that the generator draws nearly one image."""
        return any(COLLAPSED in words for words in (self.outcome.evaluation or {}).get("warnings", []))

    @property
    def final_audit(self) -> dict[str, Any] | None:
        """The audit at the end of training; None before that."""
        return self.audits.get(self.run.config.total_steps)

    def values(self, name: str) -> list[tuple[int, float]]:
        """[(step, value)] of a statistic, where it has one."""
        return [(line["step"], line[name]) for line in self.stats if line.get(name) is not None]

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
            audits[int(path.stem.removeprefix("step_"))] = audit
        except (OSError, ValueError, TypeError) as error:
            damage.append(f"{path} is damaged: {error}")
    if damage:
        found = found._replace(state="failed", message="; ".join(damage))
    return Result(run, found, stats, dict(sorted(audits.items())))


def collect(runs: Iterable[Run], known: Mapping[str, Outcome]) -> list[Result]:
    """The Results of those of the runs that were started. known: {name: Outcome} where it is known already."""
    found = [(run, known.get(run.name) or outcome(run)) for run in runs]
    return [read(run, came_to) for run, came_to in found if came_to.state != "missing"]


def tally(words: Iterable[str]) -> str:
    """How often each is among them: "3 finished, 1 diverged"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


# ---- results.csv ---------------------------------------------------------------------------------------------------


def write_csv(folder: Path, results: Iterable[Result]) -> Path:
    """Write results.csv, a line a run, where it says something else than is there. Returns its path."""
    path, text = folder / "results.csv", csv_text(COLUMNS, map(_row, results))
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_text(path, text)
    return path


def _row(result: Result) -> dict[str, Any]:
    """What was not measured stays empty. The last step is the last that was scored; the best is that of the FID."""
    run, found, last, best = result.run, result.outcome, result.last, result.best
    row: dict[str, Any] = {"run": run.name, "method": run.method, "setting": run.setting, "seed": run.seed}
    row |= {"outcome": found.state, "message": found.message, "reached": found.step, "last_step": last.get("step")}
    row |= {name: last.get(name) for name in (*METRICS, "protocol")}
    row |= {"best_step": best.get("step")} | {f"{name}_at_best": best.get(name) for name in METRICS}
    if found.evaluation:
        row["inception_score_std"] = found.evaluation["inception_score"]["std"]
        row["departures"] = "; ".join(found.evaluation["protocol"]["departures"])
        row["warnings"] = " ".join(found.evaluation.get("warnings", []))
    if audit := result.final_audit:
        row["largest_sigma"] = max(layer["sigma_svd"] for layer in audit["layers"])
        row |= {name: audit[name] for name in ("upper_bound", "lower_bound")}
    if found.record:
        row["seconds"] = round(sum(entry.get("wall_seconds", 0) for entry in found.record), 3)
        row |= {name: found.record[-1].get(name) for name in ("device", "threads", "commit")}
    return row | {"seconds_per_step": result.seconds_per_step}


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
    found = {
        key: interval([r.last[metric] for r in group], METRICS[metric].logarithmic) for key, group in groups.items()
    }
    return {key: spread for key, spread in found.items() if spread}


def worst_cases(study: Study, found: dict[tuple[Any, ...], Interval], metric: str) -> dict[str, float]:
    """The worst mean over the settings of each method that has one in all of them: {method: mean}, best first.

    found: what means() gave.
    """
    sign = -1 if METRICS[metric].more_is_better else 1
    settings = {setting for setting, _ in found}
    worst = {}
    for method in study.methods:
        own = [found[setting, method].mean for setting in settings if (setting, method) in found]
        if own and len(own) == len(settings):
            worst[method] = max(own, key=lambda mean: sign * mean)
    return dict(sorted(worst.items(), key=lambda item: sign * item[1]))
