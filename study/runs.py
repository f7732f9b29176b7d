"""The runs of a study: their outcomes, and the commands that start or continue them.

An outcome is read only from the run's directory, so it does not matter which machine trained it.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.results import kept
from settings.command_line import as_flags
from settings.config import FIELDS, differences
from training.checkpoints import record
from training.checkpoints.run_dir import checkpoints, locked
from utils.errors import UserError, refuse_if

from .grid import Run, refuse_other


class Outcome(NamedTuple):
    """The outcome of a run. state: finished, diverged, failed, unfinished or missing. step: the last one reached."""

    state: str
    step: int = 0
    message: str = ""
    evaluation: dict[str, Any] | None = None
    record: tuple[dict[str, Any], ...] = ()


DONE = ("finished", "diverged")
# Everything that may remain of a run that ended before its first checkpoint.
LEFT = ("config.yaml", "log.txt", "stats.jsonl", "samples", "checkpoints", "plots", "audits", ".lock", ".lock.holder")


def outcome(run: Run) -> Outcome:
    """Read a run's outcome from its directory. Raises UserError if that holds a run with other settings."""
    failure = failure_path(run)
    failed = failure.read_text(encoding="utf-8").strip() if failure.is_file() else ""
    if not (run.run_dir / record.NAME).is_file():
        return Outcome("failed", 0, failed) if failed else Outcome("missing")
    try:
        before, starts = record.read(run.run_dir)
    except UserError as error:  # the next start writes it again
        return Outcome("failed", 0, str(error))
    step = max([start["to_step"] for start in starts if type(start.get("to_step")) is int], default=0)
    # A run with features auto records the features that it chose.
    config = run.config if run.config.features != "auto" else dataclasses.replace(run.config, features=before.features)
    refuse_other(run.run_dir, differences(before, config))
    if step > run.config.total_steps:
        raise UserError(f"{run.run_dir} is at step {step:,}, beyond total_steps {run.config.total_steps:,}")
    if starts and "diverged" in starts[-1]:
        return Outcome("diverged", step, str(starts[-1]["diverged"]), record=tuple(starts))
    first = dataclasses.replace(config, protocol=config.protocol[:1])  # a study compares by the first protocol
    if scores := kept.standing(run.run_dir / "evaluation", first, first.total_steps, bool(first.ema_decay)):
        return Outcome("finished", run.config.total_steps, evaluation=scores[0], record=tuple(starts))
    return Outcome("failed" if failed else "unfinished", step, failed, record=tuple(starts))


def failure_path(run: Run) -> Path:
    """The file with the reason why a run failed, until it is started again."""
    return run.run_dir.parent / "console" / f"{run.name}.failed"


# ---- Starting it ---------------------------------------------------------------------------------------------------


def begin(run: Run) -> list[str]:
    """Prepare a run to be started or continued. Returns the arguments of main.py for it.

    Raises UserError if it is already done, or another process trains it.
    """
    refuse_if((state := outcome(run).state) in DONE, f"it is {state} already")
    if run.run_dir.is_dir():
        with locked(run.run_dir):  # raises if another process holds the lock
            pass
    failure_path(run).unlink(missing_ok=True)
    clear(run)
    return arguments(run)


def arguments(run: Run) -> list[str]:
    """The arguments of main.py that start a run or continue an interrupted one."""
    flags = run.flags
    if checkpoints(run.run_dir):
        resumable = {name: value for name, value in flags.items() if FIELDS[name].metadata["resumable"]}
        flags = {"resume": flags["run_dir"]} | resumable
    return as_flags(flags)


def clear(run: Run) -> None:
    """Delete the files of a run that ended before its first checkpoint."""
    kept = [path for path in run.run_dir.glob("checkpoints/*") if path.suffix in (".pt", ".damaged")]
    begun = kept or outcome(run).step > 0
    if run.run_dir.is_dir() and not begun and all(path.name in LEFT for path in run.run_dir.iterdir()):
        shutil.rmtree(run.run_dir)
