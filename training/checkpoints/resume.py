"""Starting a run, or resuming it from its newest checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

from datasets import check_place
from settings.config import FIELDS, Config, default_run_dir, differences, stored, to_flag, to_yaml
from settings.layers import resolve
from settings.rules import warnings
from utils.console import command
from utils.distributed import broadcast, on_rank_zero, say_once, select_device
from utils.errors import Damaged, UserError

from ..schedule import described, images_seen, learning_rates
from ..state import State
from . import fine_tune
from .checkpoint import Checkpoint, load
from .run_dir import checkpoints, free_run_dir, latest, refuse_existing, set_aside


def prepare(flags: dict[str, Any], dry_run: bool = False) -> Config:
    """Make the Config of a new or resumed run from flags, with its run_dir.

    Prints the preset. dry_run: print the settings instead, and exit. Raises UserError if the flags cannot be used.
    """
    config, preset = (broadcast(on_rank_zero(_resumed, flags)), None) if "resume" in flags else resolve(flags)
    run_dir = config.resume or config.run_dir or str(broadcast(on_rank_zero(free_run_dir, config)))
    named, config = bool(config.run_dir), dataclasses.replace(config, run_dir=run_dir)
    if dry_run:
        likely = select_device("cpu" if config.device == "cpu" else "auto")  # --device may be meant for another machine
        notes = [
            f"preset: {'none' if config.resume else named_preset(config, preset)}",
            f"config: {config.config or 'none'}",
            f"run_dir: {run_dir}",
            *described(config),
            *(f"warning: {w}" for w in warnings(config, likely.type)),
        ]
        say_once("\n".join([*(f"# {note}" for note in notes), to_yaml(config).rstrip("\n")]))
        raise SystemExit
    if not config.resume:
        if "data_dir" in flags:
            on_rank_zero(check_place, config)
        on_rank_zero(refuse_existing, run_dir)
        if config.init_from:
            on_rank_zero(fine_tune.source, config)
        if not named and (taken := str(default_run_dir(config))) != run_dir:
            again = command("--resume", taken)
            say_once(f"run_dir     {run_dir}, since {taken} already holds a run, which {again} continues")
        say_once(f"preset      {named_preset(config, preset)}")
    if config.config:
        say_once(f"config      {config.config}")
    return config


def named_preset(config: Config, preset: Path | None) -> str:
    """The name of a preset or, without one, the settings used instead."""
    colour, here = "grey" if config.channels == 1 else "colour", f"{config.model} for {config.dataset}"
    none = f"none of {here}: {config.image_size} pixels in {colour}, and defaults for settings not given"
    return f"{preset.parent.name}/{preset.name}" if preset else none


def _resumed(flags: dict[str, Any]) -> Config:
    """The configuration in a run's last checkpoint, with the flags. Raises UserError if a flag cannot change."""
    run_dir = flags["resume"]
    if (file := Path(run_dir)).is_file():
        meant = command("--resume", file.parent.parent) if file.parent.name == "checkpoints" else "--init_from"
        raise UserError(f"--resume takes a run, and {run_dir} is a file: did you mean {meant}?")
    config = load_newest(run_dir)[0].config
    for name, value in flags.items():
        if name in ("run_dir", "config"):
            raise UserError(f"--{name} cannot go with --resume: {run_dir} has its own. Leave out --{name}")
        if name != "resume" and value != getattr(config, name) and not FIELDS[name].metadata["resumable"]:
            now, before = to_flag(value), to_flag(getattr(config, name))
            what = f"--{name} {now} cannot change in a run that is resumed: {run_dir} has {before}"
            raise UserError(f"{what}. Start a new run for it")
    return dataclasses.replace(config, **flags)


def load_newest(run_dir: str | Path) -> tuple[Checkpoint, list[Damaged]]:
    """Load a run's newest undamaged checkpoint. Returns it, and the errors of newer, damaged ones."""
    damaged: list[Damaged] = []
    latest(run_dir)  # raises if there are no checkpoints
    for _, path in reversed(checkpoints(run_dir)):
        try:
            return load(path), damaged
        except Damaged as error:
            damaged.append(error)
    raise UserError(f"{run_dir} holds no checkpoint that can be read: {'; '.join(map(str, damaged))}")


def take_over(run_dir: Path, state: State, config: Config) -> list[str]:
    """Restore the newest undamaged checkpoint. Returns sentences about what has changed since."""
    newest = on_rank_zero(load_newest, run_dir)
    path, damaged = broadcast(newest and (newest[0].path, newest[1]))
    saved = newest[0] if newest else load(path)
    notes = state.load(saved)
    if state.step > config.total_steps:
        raise UserError(f"{run_dir} is already at step {state.step:,}, beyond --total_steps {config.total_steps:,}")
    on_rank_zero(set_aside, run_dir, state.step)
    changes = [f"{error}; it is set aside, and {path} is used instead" for error in damaged] + notes
    if missing := stored(Config()).keys() - saved.content["config"].keys() - {"total_steps"}:
        changes.append(f"{path} is from a version without {', '.join(sorted(missing))}: the defaults are used")
    rates = [learning_rates(each, images_seen(each, state.step)) for each in (saved.config, config)]
    if rates[0] != rates[1]:
        shown = " -> ".join(" and ".join(f"{lr:.3g}" for lr in pair) for pair in rates)
        changes.append(f"learning rates of G and D at this step: {shown}, as they fall to 0 at the last step")
    return changes + [f"{name} {old} -> {new}" for name, (old, new) in differences(saved.config, config).items()]
