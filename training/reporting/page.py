"""A run's report.html: one self-contained file, made only from the files in the run's directory."""

import datetime
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.results import kept
from settings.config import Config, stored, to_flag
from settings.layers import resolve
from utils.console import command
from utils.files import write_text

from ..checkpoints import record
from ..checkpoints.run_dir import is_trained
from . import rendering, sections
from .logger import read_stats
from .plots import grids_of

NAME = "report.html"
SILENCE = 3600  # seconds without an update after which the page warns; less if the run should have ended by then


class Now(NamedTuple):
    """The progress of a live run. seconds_left: None if unknown. ended: how it ended, or None."""

    step: int
    seconds_left: float | None = None
    ended: str | None = None
    doing: str = ""


def write(run_dir: str | Path, now: Now | None = None) -> Path:
    """Write the page of a run, atomically. Returns its path. now: the progress, if the run itself calls this.

    Raises UserError if config.yaml or stats.jsonl cannot be read, or the page cannot be written.
    """
    run_dir = Path(run_dir)
    path = run_dir / NAME
    write_text(path, rendering.render("run.html", **content(run_dir, now)), durable=False)
    return path


def content(run_dir: Path, now: Now | None = None) -> dict[str, Any]:
    """The values of the page, by their names in the template."""
    config, starts = record.read(run_dir)
    stats, results = read_stats(run_dir), kept.read(run_dir / "evaluation")
    top = kept.headline(results) if results else {}
    log, grids = _log(run_dir), grids_of(run_dir)
    reached = [line["step"] for line in stats[-1:]] + [step for step, _ in grids[-1:]] + [0]
    now = now or Now(max(reached), ended=None if is_trained(run_dir) else _ended(log))
    first = starts[0] if starts else {}
    sized = {"size": first["size"]} if "size" in first else {}
    defaults, preset = resolve({"dataset": config.dataset, "model": config.model, **sized})
    theirs, ours = (_words(stored(each)) for each in (defaults, config))
    real = run_dir / "samples" / "real.png"
    return {
        "title": f"{config.dataset}: {config.model}, {config.loss} loss, D with {_norms(config)}",
        "sentence": sentence(config),
        "live": now.ended is None,
        "silence": SILENCE if now.seconds_left is None else min(SILENCE, 60 + 2 * now.seconds_left),
        "written": int(time.time()),
        "updated": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        "status": status(config, now),
        "step": now.step,
        "total": config.total_steps,
        "warnings": [*_warnings(log), *sections.warnings(run_dir, top, config)],
        "real": rendering.embedded(real) if real.exists() else None,
        "grids": [{"step": step, "shown": f"{step:,}", "src": rendering.embedded(path)} for step, path in grids],
        "charts": sections.charts(stats),
        "scores": sections.scores(results),
        "classes": sections.classes(top),
        "pictures": sections.pictures(run_dir, top),
        "audit": sections.audit(run_dir),
        "commands": commands(run_dir, config, now.step, starts[-1].get("classes", []) if starts else []),
        "preset": f"configs/{preset.name}" if preset else "the defaults",
        "config": first.get("config"),
        "changed": [(name, value, theirs.get(name, "-")) for name, value in ours.items() if theirs.get(name) != value],
        "settings": list(ours.items()),
        "record": _record(starts),
    }


# ---- Description and status ----------------------------------------------------------------------------------------


def _norms(config: Config) -> str:
    norms = " and ".join(f"{name} norm" for name in config.d_norm if name != "none") or "no normalization"
    return norms + "".join(f" and {name}" for name in config.regularizer if name != "none")


def sentence(config: Config) -> str:
    """A sentence that describes the run."""
    drawn = "your own pictures" if config.dataset == "folder" else config.dataset
    colour = "grey" if config.channels == 1 else "colour"
    classes = f" of a given class ({config.conditional})" * (config.conditional != "none")
    seen = f" that sees all images augmented by {', '.join(config.augment)} (p {config.augment_p})"
    return (
        f"A {config.model} generator learns to draw {drawn}, {colour} images of {config.image_size} x "
        f"{config.image_size} pixels{classes}, against a discriminator with {_norms(config)}"
        f"{seen * (config.augment != ('none',))}, with the {config.loss} loss: {config.total_steps:,} updates of G, "
        f"each after {config.n_dis} of D."
    )


def status(config: Config, now: Now) -> str:
    """The current step and the time left, or how the run ended."""
    at = f"Step {now.step:,} of {config.total_steps:,}"
    if now.ended:
        return f"{at}: {now.ended}."
    at += f" at {datetime.datetime.now():%H:%M:%S}"  # dates a page that is no longer updated since the run was killed
    left = f", about {duration(now.seconds_left)} left" if now.seconds_left is not None else ""
    return f"{at}: {now.doing}." if now.doing else f"{at}{left}."


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def _log(run_dir: Path) -> list[str]:
    """The lines of the last start in log.txt."""
    path = run_dir / "log.txt"
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    starts = [i for i, line in enumerate(lines) if line.startswith("data  ")]
    return lines[starts[-1] :] if starts else lines


def _ended(log: Sequence[str]) -> str:
    """How the last start ended, according to its log."""
    found = [line for line in log if line.startswith("ended  ")]
    return re.sub(r"^ended +at step \d[\d,]*: ", "", found[-1]) if found else "it was probably killed (out of memory?)"


def _warnings(log: Sequence[str]) -> list[str]:
    found = (re.sub("^warning +", "", line) for line in log if line.startswith("warning  "))
    return list(dict.fromkeys(found))


# ---- Settings, commands, record ------------------------------------------------------------------------------------


def _words(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: to_flag(tuple(v) if isinstance(v, list) else v) or "-" for name, v in settings.items()}


def commands(run_dir: Path, config: Config, step: int, classes: Sequence[str] = ()) -> list[str]:
    """The commands to continue, score, audit and draw. classes: examples for a conditional run."""
    wanted = ["--labels", *classes, "--num", 10] if classes else ["--num", 64]
    longer = ["--total_steps", 2 * config.total_steps] if step >= config.total_steps else []
    return [
        command("python", "main.py", "--resume", run_dir, *longer),
        command("python", "evaluate.py", run_dir),
        command("python", "evaluate.py", run_dir, "--audit"),
        command("python", "generate.py", run_dir, *wanted, "--out", "samples"),
    ]


def _record(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Rows with the commands of all starts, and with facts about the last one."""
    rows = [("command", str(entry["command"])) for entry in entries if "command" in entry]
    last = entries[-1] if entries else {}
    for name in ("started", "commit", "host", "device", "processes", "threads", "wall_seconds"):
        if last.get(name) is not None:
            rows.append((name.replace("_", " "), str(last[name])))
    versions = last.get("versions")
    return rows + [(str(k), str(v)) for k, v in versions.items()] if isinstance(versions, dict) else rows


def refresh(run_dir: str | Path, now: Now | None = None) -> Path | None:
    """Update a run's page after new scores or an audit. Returns its path, or None if there is no run or it fails."""
    try:
        return write(run_dir, now) if (Path(run_dir) / "config.yaml").is_file() else None
    except Exception as error:  # of any kind, since anybody may have changed the files
        print(f"warning: {Path(run_dir) / NAME} could not be made: {error}")
        return None
