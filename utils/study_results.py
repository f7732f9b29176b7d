"""What the runs of a study came to, read from their directories: results.csv, and what the figures are drawn of."""

import csv
import io
import json
import math
import statistics
from typing import NamedTuple

from .checkpoint import write_atomically
from .errors import UserError
from .logger import read_stats
from .report import label
from .study import METRICS, Outcome, Run, outcome

COLUMNS = [
    *("run", "method", "setting", "seed", "outcome", "message", "step", "inception_score", "inception_score_std"),
    *("fid", "kid", "precision", "recall", "best_step", "best_inception_score", "best_fid", "best_kid", "protocol"),
    *("departures", "largest_sigma", "upper_bound", "lower_bound", "seconds", "seconds_per_step", "device", "threads"),
    *("commit", "warnings"),
]
LEVEL = 0.95  # of an interval


class Result(NamedTuple):
    """A run, what it came to, its lines of statistics and its audits {step: audit}."""

    run: Run
    outcome: Outcome
    stats: list
    audits: dict

    @property
    def scored(self):
        """The lines with scores, in the order of their steps."""
        return [line for line in self.stats if line.get("fid") is not None]

    @property
    def last(self):
        """The scores at the last step that was scored; {} where none was."""
        if self.outcome.evaluation:
            return _flat(self.outcome.evaluation)
        return self.scored[-1] if self.scored else {}

    @property
    def best(self):
        """The scores at the step with the lowest FID; {} where none was scored."""
        return min([*self.scored, *filter(None, [self.last])], key=lambda line: line["fid"], default={})

    @property
    def final_audit(self):
        return self.audits[max(self.audits)] if self.audits else None

    def values(self, name):
        """[(step, value)] of a statistic, where it has one."""
        return [(line["step"], line[name]) for line in self.stats if line.get(name) is not None]

    @property
    def seconds_per_step(self):
        """The median over the log's intervals, which leaves out scoring and the slow first ones."""
        found = [seconds for _, seconds in self.values("seconds_per_step")]
        return statistics.median(found) if found else None


def _flat(evaluation):
    """An evaluation.json's scores, under the names of stats.jsonl."""
    found = {name: evaluation[name] for name in ("fid", "precision", "recall") if name in evaluation}
    found |= {name: evaluation[name]["mean"] for name in ("inception_score", "kid") if name in evaluation}
    return {"step": evaluation["protocol"]["step"], "protocol": label(evaluation["protocol"]), **found}


def read(run, found=None):
    """The Result of a run. Files of a run that is being trained or was cut off are taken as far as they are whole."""
    audits = {}
    for path in (run.run_dir / "audits").glob("step_*.json"):
        try:
            audits[int(path.stem.removeprefix("step_"))] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is no audit: {error}; delete it") from error
    return Result(run, found or outcome(run), read_stats(run.run_dir), dict(sorted(audits.items())))


def collect(study):
    """The Results of all runs of a study that were started."""
    found = [(run, outcome(run)) for run in study.runs()]
    return [read(*pair) for pair in found if pair[1].state != "missing"]


# ---- results.csv ---------------------------------------------------------------------------------------------------


def write_csv(folder, results):
    """Write results.csv, a line a run. Returns whether it says anything that it did not say before."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_row, results))
    path = folder / "results.csv"
    text = table.getvalue()
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return False
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return True


def _row(result):
    run, found, last, best = result.run, result.outcome, result.last, result.best
    row = {"run": run.name, "method": run.method, "setting": run.setting, "seed": run.seed}
    row |= {"outcome": found.state, "message": found.message, "step": last.get("step", found.step)}
    row |= {name: last.get(name) for name in ("inception_score", "fid", "kid", "precision", "recall", "protocol")}
    row |= {f"best_{name}": best.get(name) for name in ("step", *METRICS)}
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
    """A mean over seeds, and where it lies with 95 % confidence; the mean itself twice, where there is one seed."""

    mean: float
    low: float
    high: float


def interval(values, logarithmic=False):
    """Student's t interval of the mean of values, or of their geometric mean; None without values."""
    from scipy import stats

    values = [math.log(max(value, 1e-12)) for value in values] if logarithmic else list(values)
    if not values:
        return None
    mean = statistics.fmean(values)
    low = high = mean
    if len(values) > 1 and (spread := stats.sem(values)) > 0:
        low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=spread)
    return Interval(*(math.exp(x) if logarithmic else float(x) for x in (mean, low, high)))


def by(results, *names):
    """Results in groups: {(value of each name): [results]}, in the order of methods and settings."""
    groups = {}
    for result in results:
        groups.setdefault(tuple(getattr(result.run, name) for name in names), []).append(result)
    return groups
