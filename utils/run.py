"""A run: how it starts, resumes and stops, and the state that its checkpoints hold beside the configuration."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import torch

from . import checkpoint
from .config import FIELDS, default_run_dir, resolve, stored, to_yaml
from .data import Batches
from .ema import EMA
from .errors import Diverged, UserError
from .precision import Precision

DISK_RESERVE = 100 * 2**20  # bytes beside the checkpoints: pictures and logs


# ---- Start and resume ----------------------------------------------------------------------------------------------


def prepare(flags, dry_run=False):
    """From the typed flags to the Config of a new run, or of the one that --resume names, its run_dir filled in.

    Says which preset was taken. dry_run: print the settings and exit instead. UserError for what cannot be.
    """
    config, preset = (_resumed(flags), None) if "resume" in flags else resolve(flags)
    config = dataclasses.replace(config, run_dir=config.resume or config.run_dir or str(default_run_dir(config)))
    if dry_run:
        print(f"# preset: {preset or 'none'}\n# run_dir: {config.run_dir}\n{to_yaml(config)}", end="")
        raise SystemExit
    if not config.resume:
        refuse_existing(config.run_dir)
    if preset:
        print(f"preset      {preset.parent.name}/{preset.name}")
    return config


def refuse_existing(run_dir):
    """Raise UserError where a new run would meet another's files."""
    path = Path(run_dir)
    if path.exists() and not path.is_dir():
        raise UserError(f"{run_dir} is a file; choose another --run_dir")
    if path.exists() and any(path.iterdir()):
        resume = f"Go on with --resume {run_dir}, or choose" if checkpoint.checkpoints(run_dir) else "Choose"
        raise UserError(
            f"{run_dir} exists, and a run never overwrites another. {resume} another --run_dir or --seed, or delete it"
        )
    parent = existing_parent(path)
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{run_dir} cannot be made: {parent} is not a folder that can be written to")


def existing_parent(path):
    """The nearest folder on a path that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _resumed(flags):
    """The configuration in a run's last checkpoint, with the flags that may change; UserError for the others."""
    run_dir = flags["resume"]
    if not Path(run_dir).is_dir():
        raise UserError(f"--resume takes a run directory, and {run_dir} is none")
    config = checkpoint.config_of(*checkpoint.load_latest(run_dir))
    for name, value in flags.items():
        if name in ("run_dir", "config"):
            raise UserError(f"--{name} has no place beside --resume: {run_dir} has its own")
        if name != "resume" and value != getattr(config, name) and not FIELDS[name].metadata["resumable"]:
            raise UserError(
                f"--{name} {value} cannot change in a run that is resumed: {run_dir} has {getattr(config, name)}. "
                "Start a new run for it"
            )
    return dataclasses.replace(config, **flags)


def check_disk(run_dir, state, keep):
    """Raise UserError where the checkpoints that will be kept would not fit on the disk."""
    networks = [state.G, state.D] + ([state.ema.G] if state.ema else [])
    values = sum(tensor.numel() * tensor.element_size() for net in networks for tensor in net.state_dict().values())
    adam = 2 * sum(p.numel() * p.element_size() for net in (state.G, state.D) for p in net.parameters())
    needed, free = (values + adam) * (keep + 1) + DISK_RESERVE, shutil.disk_usage(existing_parent(run_dir)).free
    if needed > free:
        raise UserError(
            f"{run_dir} may need {needed / 2**20:,.0f} MiB for its checkpoints and pictures, and "
            f"{free / 2**20:,.0f} MiB are free there; choose another --run_dir or a smaller --keep"
        )


# ---- State ---------------------------------------------------------------------------------------------------------


class State:
    """All that changes while a run trains, and so all that a checkpoint holds beside the configuration."""

    def __init__(self, config, images, device):
        torch.manual_seed(config.seed)
        G, D = checkpoint.models_of(config)
        self.G, self.D = G.to(device), D.to(device)
        self.precision = {name: Precision(config.amp, device) for name in ("G", "D")}
        self.opt_G = _make_optimizer(config, self.G, config.lr_G)
        self.opt_D = _make_optimizer(config, self.D, config.lr_D)
        self.ema = EMA(self.G, config.ema_decay) if config.ema_decay else None
        self.batches = Batches(images.images.to(device), config.batch_size, config.seed)
        self.data_sha256 = images.sha256()
        # One stream for z, dequantization and interpolation, apart from torch's global one, which libraries may use.
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.step = 0
        self.pending = []  # (loss_D, loss_G, D(real), D(fake)) of the steps since the last line of the log

    @property
    def scored(self):
        """The generator that is sampled and scored: the EMA where there is one."""
        return self.ema.G if self.ema else self.G

    def state_dict(self):
        return {
            "step": self.step,
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "ema": self.ema.G.state_dict() if self.ema else None,
            "opt_G": self.opt_G.state_dict(),
            "opt_D": self.opt_D.state_dict(),
            "scalers": {name: precision.state_dict() for name, precision in self.precision.items()},
            "random": self.random.get_state(),
            "data": {**self.batches.state_dict(), "sha256": self.data_sha256},
            "pending": torch.stack(self.pending) if self.pending else None,
        }

    def load_state_dict(self, content, path):
        """Take over what a loaded checkpoint holds; path is for the messages. UserError where it does not fit."""
        if content["data"].get("sha256") != self.data_sha256:
            raise UserError(f"{path} was trained on other data than there are now: the same --data_dir, unchanged?")
        checkpoint.load_weights(self.G, content["G"], path, "G")
        checkpoint.load_weights(self.D, content["D"], path, "D")
        if self.ema:
            checkpoint.load_weights(self.ema.G, content["ema"], path, "EMA")
        checkpoint.load_weights(self.opt_G, content["opt_G"], path, "optimizer of G")
        checkpoint.load_weights(self.opt_D, content["opt_D"], path, "optimizer of D")
        for name, precision in self.precision.items():
            precision.load_state_dict(content.get("scalers", {}).get(name))
        try:
            self.random.set_state(content["random"])
            self.batches.load_state_dict(content["data"])
        except (RuntimeError, TypeError, KeyError) as error:
            raise UserError(f"{path}: its random state or data order cannot be used: {error}") from error
        self.step, pending = content["step"], content["pending"]
        self.pending = [] if pending is None else list(pending.to(self.batches.images.device))


def _make_optimizer(config, network, lr):
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr, foreach=True)
    return torch.optim.Adam(network.parameters(), lr, betas=config.betas, fused=True)


def save_checkpoint(run_dir, state, config):
    """Save the run's whole state and thin the older checkpoints; Diverged instead where a weight is not finite."""
    for name, network in (("G", state.G), ("D", state.D)):
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise Diverged(f"a weight of {name} is not finite at step {state.step}")
    path = checkpoint.checkpoint_path(run_dir, state.step)
    checkpoint.save(path, {"format": checkpoint.FORMAT, "config": stored(config), **state.state_dict()})
    checkpoint.thin(run_dir, config.keep)
    return path


# ---- Stop ----------------------------------------------------------------------------------------------------------


class StopSignal:
    """Within it, SIGINT and SIGTERM are noted for the loop instead of ending the process; a second SIGINT ends it."""

    received = None

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)
