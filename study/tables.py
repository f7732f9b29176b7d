"""The two tables that a study leaves: results.csv, a line a run, and training.csv, a line a step of a run.

They are small enough to be kept with a text, and the report can be made of them again where the runs are gone.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.results.report import csv_text
from evaluation.scores.registry import OWN, scores_of
from utils.errors import UserError
from utils.files import write_text

from .grid import Run, Study
from .methods import METRICS
from .results import SUMMED, Result
from .runs import Outcome

RESULTS, TRAINING = "results.csv", "training.csv"
TEXT = {"run", "method", "setting", "outcome", "message", "protocol", "departures", "device", "commit", "warnings"}
RECORDED = ("device", "threads", "commit")
COLUMNS = [
    *("run", "method", "setting", "seed", "outcome", "message", "reached"),
    *("last_step", "inception_score", "inception_score_std"),
    *(name for name in scores_of("images", "modes", "diagnosis") if name != "inception_score"),
    *("best_step", *(f"{name}_at_best" for name in METRICS), "protocol", "departures"),
    *("largest_sigma", "upper_bound", "lower_bound", "rank_used", "seconds", "seconds_per_step", "device", "threads"),
    *("commit", "warnings"),
]
OF_LAST = ("inception_score_std", *METRICS, "protocol", "departures", "warnings")
MEASURED = ("loss_D", "loss_G", "real_logits", "fake_logits", "accuracy_D", "grad_norm_G", "grad_norm_input")
OF_STEP = ("seconds_per_step", *MEASURED, *METRICS, "fid" + OWN)
NEEDED = ("run", "outcome", "reached")  # in each line of results.csv, and of a finished run
FINISHED = {"last_step", "fid", "protocol"}
DIGITS = 6  # of a number in training.csv, but for the seconds, of which results.csv has the median


def write_tables(folder: Path, results: Iterable[Result]) -> list[Path]:
    """Write both tables where they say something else than is there. Returns their paths."""
    results = list(results)
    texts = {
        RESULTS: csv_text(COLUMNS, map(_row, results)),
        TRAINING: csv_text(["run", "step", *OF_STEP, *SUMMED], (line for r in results for line in _lines(r))),
    }
    for name, text in texts.items():
        path = folder / name
        if not (path.is_file() and path.read_bytes() == text.encode()):
            write_text(path, text)
    return [folder / name for name in texts]


def _row(result: Result) -> dict[str, Any]:
    """What was not measured stays empty. The last step is the last that was scored; the best is that of the FID."""
    run, found, last, best = result.run, result.outcome, result.last, result.best
    row: dict[str, Any] = {"run": run.name, "method": run.method, "setting": run.setting, "seed": run.seed}
    row |= {"outcome": found.state, "message": found.message, "reached": found.step, "last_step": last.get("step")}
    row |= {name: last.get(name) for name in OF_LAST}
    row |= {"best_step": best.get("step")} | {f"{name}_at_best": best.get(name) for name in METRICS}
    row |= {name: (result.final_audit or {}).get(name) for name in SUMMED}
    if found.record:
        row["seconds"] = round(sum(entry.get("wall_seconds", 0) for entry in found.record), 3)
        row |= {name: found.record[-1].get(name) for name in RECORDED}
    return row | {"seconds_per_step": result.seconds_per_step}


def _lines(result: Result) -> Iterator[dict[str, Any]]:
    """The statistics, scores and audits of each step."""
    found: dict[int, dict[str, Any]] = {}
    for line in (*result.stats, *filter(None, [result.last])):
        found.setdefault(line["step"], {}).update({name: line[name] for name in OF_STEP if name in line})
    for step, audit in result.audits.items():
        found.setdefault(step, {}).update({name: audit[name] for name in SUMMED})
    for step, line in sorted(found.items()):
        rounded = {k: v for k, v in line.items() if type(v) is float and k != "seconds_per_step"}
        numbers = line | {k: float(f"{v:.{DIGITS}g}") for k, v in rounded.items()}
        yield {"run": result.run.name, "step": step, **numbers}


# ---- Read again ----------------------------------------------------------------------------------------------------


def read_tables(study: Study, folder: Path) -> list[Result]:
    """The Results of a study's runs that the two tables in a folder tell of.

    UserError where one is absent or damaged, or of a run that the study does not have.
    """
    rows = _read(folder / RESULTS, NEEDED)
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in _read(folder / TRAINING, ("run", "step")):
        lines.setdefault(line.pop("run"), []).append(line)
    runs = {run.name: run for run in study.runs()}
    if unknown := [row["run"] for row in rows if row["run"] not in runs]:
        raise UserError(f"{folder / RESULTS} has {unknown[0]}, which is no run of {study.name}")
    for row in rows:
        config = runs[row["run"]].config
        if row["outcome"] != "finished":
            continue
        if not {*row} >= FINISHED:
            raise UserError(f"{folder / RESULTS} is damaged: {row['run']} is finished and has no score")
        if row["reached"] != config.total_steps or f"images of {config.dataset}," not in row["protocol"]:
            raise UserError(f"{folder / RESULTS} is of other steps or images than {study.name}: {row['run']} differs")
    return [_result(runs[row["run"]], row, lines.get(row["run"], [])) for row in rows]


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a table, each with what is needed: numbers as numbers; what is empty is left out."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns, rows = reader.fieldnames or (), list(reader)
        if lacking := [name for name in needed if name not in columns]:
            raise UserError(f"{path} is no table of a study: it has no {lacking[0]}")
        for i, row in enumerate(rows, 2):
            if None in row or not all(row[name] for name in needed):
                raise UserError(f"{path} is damaged: line {i} lacks something, or has too much")
        return [{k: v if k in TEXT else _number(v) for k, v in row.items() if v} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _number(text: str) -> int | float:
    value = int(text) if text.lstrip("-").isdecimal() else float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of a study")
    return value


def _result(run: Run, row: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> Result:
    """A run as its lines of the tables tell of it; what its row says goes before what training.csv says."""
    stats, audits = {}, {}
    for line in lines:
        stats[line["step"]] = {name: value for name, value in line.items() if name not in SUMMED}
        if "lower_bound" in line:
            audits[line["step"]] = line
    for step, suffix in (("best_step", "_at_best"), ("last_step", "")):
        if step in row:
            scores = {name: row[name + suffix] for name in OF_LAST if name + suffix in row}
            stats[row[step]] = stats.get(row[step], {"step": row[step]}) | scores
    if "lower_bound" in row:
        audits[run.config.total_steps] = row
    record = {name: row[name] for name in RECORDED if name in row} | {"wall_seconds": row.get("seconds", 0)}
    return Result(
        run,
        Outcome(row["outcome"], row["reached"], row.get("message", ""), None, (record,)),
        [stats[step] for step in sorted(stats)],
        {step: {"layers": [], **{name: audits[step].get(name) for name in SUMMED}} for step in sorted(audits)},
        tabled=True,
    )
