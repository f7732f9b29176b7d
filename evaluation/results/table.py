"""A table of runs: a row for each configuration with mean and spread over seeds. Real images come last.

Scores from different protocols, counts, real images or extractors are marked by letters.
"""

import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from settings.config import FIELDS, Config, to_flag
from utils.errors import refuse_if
from utils.files import check_target, write_text

from ..scores.registry import scores_of
from .kept import Result, comparable, real_name, step_of
from .report import csv_text, labels

# Settings that --resume may change do not define a run, but how and where it continues.
VARIED = [name for name, f in FIELDS.items() if name != "seed" and not f.metadata["resumable"] and f.metadata["stored"]]
NAMED = 4  # differing settings in a row's name, at most
SCORES = scores_of("images", "modes", "classes")
COLUMNS = ["configuration", "step", "n", *(name + end for name in SCORES for end in ("", "_std")), "protocol", "runs"]
STARTS = {".csv": "configuration,", ".md": "<!-- scores, by evaluate.py", ".tex": "% scores, by evaluate.py"}
TEMPLATES = Path(__file__).resolve().parent / "templates"
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
TEX |= {">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "*": "{*}"}  # these two would start an argument
TEX |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
ESCAPES = {".md": str.maketrans({sign: f"\\{sign}" for sign in r"\`*_|<>[]~#$&"}), ".tex": str.maketrans(TEX)}


class Scored(NamedTuple):
    """A generator's name, the configuration of its run, and its result under a protocol."""

    name: str
    config: Config
    result: Result


class Row(NamedTuple):
    """A row of the table. scores: {name: (mean, standard deviation over seeds or None)}; n: None for real images."""

    name: str
    step: int | None
    n: int | None
    scores: dict[str, tuple[float, float | None]]
    label: str
    runs: str


def check(target: str) -> None:
    """Check a path for a table. Raises UserError if it cannot be written, or is an existing file of another kind."""
    path = Path(target)
    refuse_if(path.suffix not in STARTS, f"--table {target}: the name must end in {', '.join(STARTS)}")
    check_target(path)
    if os.path.lexists(path):
        try:
            own = path.read_text(encoding="utf-8").startswith(STARTS[path.suffix])
        except (OSError, ValueError):
            own = False
        refuse_if(not own, f"--table {target}: another file is there and is not overwritten; choose another name")


def check_seeds(generators: Mapping[str, tuple[Config, int]]) -> None:
    """Check seeds. Raises UserError if two of {name: (configuration, step)} are equal, including the seed."""
    seen: dict[Any, str] = {}
    for name, (config, step) in generators.items():
        other = seen.setdefault((_kind(config), config.seed, step), name)
        same = f"{other} and {name} have the same seed: leave one out"
        refuse_if(other != name, f"--table takes each seed of a configuration once, but {same}")


def _kind(config: Config) -> tuple[Any, ...]:
    """A key that is equal for configurations that differ only in the seed."""
    return tuple(_settings(config).values())


def _settings(config: Config) -> dict[str, str]:
    """The settings that define a training. total_steps counts only if learning rates decay until then."""
    values = {name: to_flag(getattr(config, name)) for name in VARIED if name != "num_epochs"}
    return values | ({"total_steps": str(config.total_steps)} if config.lr_decay != "none" else {})


def rows(scored: Sequence[Scored]) -> list[Row]:
    """The rows of a table: one for each configuration, step and protocol, then real images.

    Results under different protocols come in separate parts, each with the label of its protocol.
    """
    names, found = row_names(scored), []
    parts = _groups(scored, lambda one: comparable(one.result))
    for label, part in zip(labels([[one.result for one in part] for part in parts.values()]), parts.values()):
        label = label.replace(", G itself, not its EMA", "")
        groups = _groups(part, lambda one: (_kind(one.config), step_of(one.result), one.result["protocol"].get("ema")))
        for (kind, step, ema), group in groups.items():
            name = names[kind] + (", G itself" if group[0].config.ema_decay and not ema else "")
            scores = _scores([one.result for one in group])
            found.append(Row(name, step, len(group), scores, label, " ".join(one.name for one in group)))
        held_out = [known for one in part if "fid" in (known := one.result.get("held_out", {}))]
        for known in held_out[:1]:
            found.append(Row(real_name(known), None, None, _scores([known]), label, ""))
    return found


def _groups(scored: Sequence[Scored], key: Callable[[Scored], Any]) -> dict[Any, list[Scored]]:
    """Group by key(): {key: results with this key}, in order of appearance."""
    found: dict[Any, list[Scored]] = {}
    for one in scored:
        found.setdefault(key(one), []).append(one)
    return found


def _scores(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """The mean and standard deviation of each score that all of these results have."""
    found = {}
    for name, score in SCORES.items():
        values = [value for result in results if (value := score.value(result)) is not None]
        if len(values) == len(results):
            found[name] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    return found


def row_names(scored: Sequence[Scored]) -> dict[tuple[Any, ...], str]:
    """{_kind(): name of a row}: the settings that differ from other rows. If these are none or more than NAMED, the
    name of its run."""
    groups = _groups(scored, lambda one: _kind(one.config))
    settings = {kind: _settings(group[0].config) for kind, group in groups.items()}
    names = dict.fromkeys(name for found in settings.values() for name in found)
    differing = [name for name in names if len({found.get(name) for found in settings.values()}) > 1]
    if 0 < len(differing) <= NAMED:
        return {
            kind: ", ".join(f"{name} {found[name]}" for name in differing if name in found)
            for kind, found in settings.items()
        }
    return {kind: _run_name(group) for kind, group in groups.items()}


def _run_name(group: Sequence[Scored]) -> str:
    """The name of a run's folder or file; for several seeds, without the seed."""
    name = Path(group[0].name).name
    several = len({one.config.seed for one in group}) > 1
    return (re.sub(r"[_-]?seed_?\d+(-\d+)?", "", name) if several else name) or name


def write(target: str, scored: Sequence[Scored]) -> list[Row]:
    """Write a table of results as .csv, .md or .tex. Returns its rows. Raises UserError if it cannot be written."""
    found, suffix = rows(scored), Path(target).suffix
    write_text(target, _as_csv(found) if suffix == ".csv" else _as_text(suffix, found, notes(scored, found)))
    return found


def notes(scored: Sequence[Scored], found: Sequence[Row]) -> list[str]:
    """The sentences of the table's caption: the meaning of n, and the protocols."""
    steps = sorted({row.step for row in found if row.step is not None})
    said = [f"At step {steps[0]:,}."] if len(steps) == 1 else []
    if any(row.n and row.n > 1 for row in found):
        said.append("Mean and standard deviation over n runs that differ only in the seed.")
    letters = _letters(found)
    if len(letters) == 1:
        said.append(f"All scores: {found[0].label}.")
    else:
        said.append("Scores with different letters cannot be compared.")
        said += [f"{letter}: {label}." for label, letter in letters.items()]
    if any(row.n is None for row in found):
        said.append("The number of real images is in brackets: the fewer images of either kind, the higher the FID.")
    short = dict.fromkeys("; ".join(one.result["protocol"]["departures"]) for one in scored)
    return said + [f"Short of a full protocol: {words}." for words in short if words]


def _letters(found: Sequence[Row]) -> dict[str, str]:
    """{label of a row: its letter}."""
    return {label: chr(ord("A") + i) for i, label in enumerate(dict.fromkeys(row.label for row in found))}


def _as_csv(found: Sequence[Row]) -> str:
    """The table as CSV: all digits, and the protocol in each row."""
    lines = []
    for row in found:
        line: dict[str, Any]
        line = {"configuration": row.name, "step": row.step, "n": row.n, "protocol": row.label, "runs": row.runs}
        for name, (mean, std) in row.scores.items():
            line |= {name: mean, f"{name}_std": std}
        lines.append(line)
    return csv_text(COLUMNS, lines)


def _as_text(suffix: str, found: Sequence[Row], said: Sequence[str]) -> str:
    """The table and its caption by the template for this suffix."""

    def escaped(text: str) -> str:
        return re.sub(r"\s+", " ", text).translate(ESCAPES[suffix])

    environment = Environment(loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True)
    heads, *lines = ([escaped(cell) for cell in row] for row in _cells(found))
    return environment.get_template(f"table{suffix}").render(heads=heads, rows=lines, caption=escaped(" ".join(said)))


def _cells(found: Sequence[Row]) -> Iterator[list[str]]:
    """The heading and the rows as text, without columns that are the same everywhere."""
    letters = _letters(found)
    several = len(letters) > 1
    steps = len({row.step for row in found if row.n}) > 1
    some = {name for row in found for name in row.scores}
    shown = {name: score for name, score in SCORES.items() if score.always or name in some}
    heads = [f"{score.label} {'↑' if score.better == 'more' else '↓'}" for score in shown.values()]
    yield ["configuration"] + ["scored as"] * several + ["step"] * steps + ["n"] + heads
    for row in found:
        line = [row.name] + [letters[row.label]] * several
        line += ["" if row.step is None else f"{row.step:,}"] * steps + [str(row.n or "")]
        for name, score in shown.items():
            mean, std = row.scores.get(name, (None, None))
            text = "" if mean is None else f"{mean:z.{score.digits}f}"
            line.append(text + ("" if std is None else f" ± {std:z.{score.digits}f}"))
        yield line
