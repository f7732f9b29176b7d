"""How a run starts, goes on from a checkpoint, and goes back to one."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from settings.config import FIELDS, Config, default_run_dir, differences, to_yaml
from settings.layers import resolve
from settings.rules import warnings
from utils.console import command
from utils.distributed import agree, broadcast, on_rank_zero, say_once
from utils.errors import Damaged, Diverged, UserError

from ..schedule import described, images_seen, learning_rates
from ..state import State, save_checkpoint
from . import checkpoint, fine_tune
from .run_dir import checkpoints, free_run_dir, latest, refuse_existing, set_aside

if TYPE_CHECKING:
    from ..run import Run

MAX_ROLLBACKS = 3


def prepare(flags: dict[str, Any], dry_run: bool = False) -> Config:
    """From the typed flags to the Config of a new run, or of the one that --resume names, its run_dir filled in.

    Says which preset was taken. dry_run: print the settings and exit instead. UserError for what cannot be.
    """
    config, preset = (broadcast(on_rank_zero(_resumed, flags)), None) if "resume" in flags else resolve(flags)
    run_dir = config.resume or config.run_dir or str(broadcast(on_rank_zero(free_run_dir, config)))
    named, config = bool(config.run_dir), dataclasses.replace(config, run_dir=run_dir)
    if dry_run:
        notes = [
            f"preset: {preset or 'none'}",
            f"run_dir: {run_dir}",
            *described(config),
            *(f"warning: {w}" for w in warnings(config, config.device != "cpu" and torch.cuda.is_available())),
        ]
        say_once("\n".join([*(f"# {note}" for note in notes), to_yaml(config).rstrip("\n")]))
        raise SystemExit
    if not config.resume:
        on_rank_zero(refuse_existing, run_dir)
        on_rank_zero(fine_tune.check, config)
        if not named and (taken := str(default_run_dir(config))) != run_dir:
            again = command("--resume", taken)
            say_once(f"run_dir     {run_dir}, since {taken} has a run already, which {again} goes on with")
    if preset:
        say_once(f"preset      {preset.parent.name}/{preset.name}")
    return config


def _resumed(flags: dict[str, Any]) -> Config:
    """The configuration in a run's last checkpoint, with the flags that may change; UserError for the others."""
    run_dir = flags["resume"]
    if not Path(run_dir).is_dir():
        raise UserError(f"--resume takes a run directory, and {run_dir} is none")
    config = checkpoint.config_of(*load_newest(run_dir)[:2])
    for name, value in flags.items():
        if name in ("run_dir", "config"):
            raise UserError(f"--{name} has no place beside --resume: {run_dir} has its own")
        if name != "resume" and value != getattr(config, name) and not FIELDS[name].metadata["resumable"]:
            raise UserError(
                f"--{name} {value} cannot change in a run that is resumed: {run_dir} has {getattr(config, name)}. "
                "Start a new run for it"
            )
    return dataclasses.replace(config, **flags)


def load_newest(run_dir: str | Path) -> tuple[dict[str, Any], Path, list[Damaged]]:
    """Load a run directory's newest checkpoint that is whole. Returns (content, path, why newer ones are not)."""
    damaged: list[Damaged] = []
    latest(run_dir)  # refuses a directory without any
    for _, path in reversed(checkpoints(run_dir)):
        try:
            return checkpoint.load(path), path, damaged
        except Damaged as error:
            damaged.append(error)
    raise UserError(f"{run_dir} holds no checkpoint that can be read: {'; '.join(map(str, damaged))}")


def take_over(run_dir: Path, state: State, config: Config) -> list[str]:
    """Take over the newest checkpoint that is whole. Returns sentences about what is other than it was there."""
    newest = on_rank_zero(load_newest, run_dir)
    path, damaged = broadcast(newest and newest[1:])
    content = newest[0] if newest else checkpoint.load(path)
    notes = state.load_state_dict(content, path)
    if state.step > config.total_steps:
        raise UserError(f"{run_dir} is at step {state.step:,} already, beyond --total_steps {config.total_steps:,}")
    on_rank_zero(set_aside, run_dir, state.step)
    changes = [f"{error}; it is set aside, and {path} taken" for error in damaged] + notes
    if missing := checkpoint.missing_settings(content):
        changes.append(f"{path} is of a version without {', '.join(missing)}: their defaults are taken")
    before = checkpoint.config_of(content, path)
    seen, now = images_seen(before, state.step), images_seen(config, state.step)
    rates = learning_rates(before, seen), learning_rates(config, now)
    if rates[0] != rates[1]:
        shown = " -> ".join(" and ".join(f"{lr:.3g}" for lr in pair) for pair in rates)
        changes.append(f"the learning rates of G and D at this step {shown}, as they fall to 0 by the last one")
    return changes + [f"{name} {old} -> {new}" for name, (old, new) in differences(before, config).items()]


def roll_back(run: "Run", error: Diverged) -> None:
    """Under --on_nan rollback, go back to the last good checkpoint with another seed; else raise Diverged, advised."""
    state, found = run.state, checkpoints(run.run_dir)
    if run.config.on_nan == "stop" or state.rollbacks == MAX_ROLLBACKS or not found:
        last = f"the last good checkpoint is {found[-1][1]}" if found else "no checkpoint had been saved"
        tried = f" {state.rollbacks} times it went back, with another seed each." if state.rollbacks else ""
        advice = "A smaller learning rate or another normalization may help"
        raise Diverged(f"{error}; {last}.{tried} {advice}") from error
    state.load_state_dict(checkpoint.load(found[-1][1]), found[-1][1])
    agree(0)  # all have read the file that is written next
    state.change_seed()
    save_checkpoint(run.run_dir, state, run.config)  # so that a resume, too, goes on with that seed and count
    run.logger.rewind(state.step)
    run.logger.say(f"rollback    {error}; back to step {state.step:,} with another seed ({state.rollbacks}.)")
