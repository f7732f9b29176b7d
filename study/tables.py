"""The two tables of a study: results.csv with one line per run, training.csv with one per step of a run.

They are small enough to keep with a paper, and the report can be made again from them without the runs.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.results.report import csv_text
from evaluation.scores.registry import OWN, scores_of
from utils.errors import UserError, refuse_if
from utils.files import write_text

from .grid import Run, Study
from .methods import METRICS
from .results import SUMMED, Result
from .runs import Outcome

Columns = dict[str, type]  # {name of a column: type of its values}, in the order of the table
Row = dict[str, Any]


def _columns(*groups: tuple[Any, ...]) -> Columns:
    """Columns from groups of (type, names)."""
    return {name: kind for kind, *names in groups for name in names}


SCORES = {name: int if score.digits == 0 else float for name, score in METRICS.items()}
RESULTS = _columns(
    (str, "run", "method", "setting"),
    (int, "seed"),
    (str, "outcome", "message"),
    (int, "reached", "last_step"),
    (float, "inception_score", "inception_score_std"),
    *((SCORES[name], name) for name in scores_of("images", "modes", "diagnosis") if name != "inception_score"),
    (int, "best_step"),
    *((kind, f"{name}_at_best") for name, kind in SCORES.items()),
    (str, "protocol", "departures"),
    (float, "largest_sigma", "upper_bound", "lower_bound", "rank_used", "seconds", "seconds_per_step"),
    (str, "device"),
    (int, "threads"),
    (str, "commit", "warnings"),
)
MEASURED = ("loss_D", "loss_G", "real_logits", "fake_logits", "accuracy_D", "grad_norm_G", "grad_norm_input")
OF_STEP = _columns((float, "seconds_per_step", *MEASURED)) | SCORES | _columns((float, "fid" + OWN))
TRAINING = _columns((str, "run"), (int, "step")) | OF_STEP | _columns((float, *SUMMED))
OF_LAST = ("inception_score_std", *SCORES, "protocol", "departures", "warnings")  # of the last score
RECORDED = ("device", "threads", "commit")  # of the last start
DIGITS = 6  # of numbers in training.csv, except seconds, since results.csv has their median


def write_tables(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write both tables, each only if its content has changed. Returns their paths."""
    texts = {
        folder / "results.csv": csv_text([*RESULTS], map(_row, results)),
        folder / "training.csv": csv_text([*TRAINING], (line for result in results for line in _lines(result))),
    }
    for path, text in texts.items():
        if not (path.is_file() and path.read_bytes() == text.encode()):
            write_text(path, text)
    return [*texts]


def _row(result: Result) -> Row:
    """The line of a run in results.csv; last_step is the last scored step, best_step that with the lowest FID."""
    run, found, last, best = result.run, result.outcome, result.last, result.best
    row: Row = {"run": run.name, "method": run.method, "setting": run.setting, "seed": run.seed}
    row |= {"outcome": found.state, "message": found.message, "reached": found.step, "last_step": last.get("step")}
    row |= {name: last.get(name) for name in OF_LAST}
    row |= {"best_step": best.get("step")} | {f"{name}_at_best": best.get(name) for name in SCORES}
    row |= {name: (result.final_audit or {}).get(name) for name in SUMMED}
    if found.record:
        row["seconds"] = round(math.fsum(entry.get("wall_seconds", 0) for entry in found.record), 3)
        row |= {name: found.record[-1].get(name) for name in RECORDED}
    return row | {"seconds_per_step": result.seconds_per_step}


def _lines(result: Result) -> Iterator[Row]:
    """The lines of a run in training.csv: statistics, scores and audits of each step."""
    found: dict[int, Row] = {}
    for line in (*result.stats, *filter(None, [result.last])):
        found.setdefault(line["step"], {}).update({name: line[name] for name in OF_STEP if name in line})
    for step, audit in result.audits.items():
        found.setdefault(step, {}).update({name: audit[name] for name in SUMMED})
    for step, line in sorted(found.items()):
        rounded = {k: float(f"{v:.{DIGITS}g}") for k, v in line.items() if type(v) is float and k != "seconds_per_step"}
        yield {"run": result.run.name, "step": step, **line, **rounded}


# ---- Reading -------------------------------------------------------------------------------------------------------


def read_tables(study: Study, folder: Path) -> list[Result]:
    """Read the Results of a study's runs from the two tables in a folder.

    Raises UserError if a table is absent or damaged, or has a run that the study does not have.
    """
    path, runs = folder / "results.csv", {run.name: run for run in study.runs()}
    rows = _read(path, RESULTS, "run", "outcome", "reached")
    lines: dict[str, list[Row]] = {}
    for line in _read(folder / "training.csv", TRAINING, "run", "step"):
        lines.setdefault(line["run"], []).append(line)
    for row in rows:
        name = row["run"]
        refuse_if(name not in runs, f"{path} has {name}, which is not a run of {study.name}")
        if row["outcome"] == "finished":
            refuse_if(not row.keys() >= {"last_step", "fid", "protocol"}, f"{path} is damaged: {name} has no score")
            config = runs[name].config
            alike = row["reached"] == config.total_steps and f"images of {config.dataset}," in row["protocol"]
            refuse_if(not alike, f"{path} has other total_steps or images than {study.name}: {name} differs")
    return [_result(runs[row["run"]], row, lines.get(row["run"], [])) for row in rows]


def _read(path: Path, columns: Columns, *needed: str) -> list[Row]:
    """Read the lines of a table, without empty values. Raises UserError if a needed value is missing or damaged."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        for i, row in enumerate(rows, 2):
            whole = None not in row and all(map(row.get, needed))
            refuse_if(not whole, f"{path} is damaged: line {i} has too few or too many values")
        return [{name: kind(row[name]) for name, kind in columns.items() if row.get(name)} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _result(run: Run, row: Row, lines: Sequence[Row]) -> Result:
    """The Result of a run from its lines in both tables; results.csv overrides training.csv."""
    stats = {line["step"]: {name: line[name] for name in ("step", *OF_STEP) if name in line} for line in lines}
    audits = {line["step"]: line for line in lines if "lower_bound" in line}
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
