"""A run: how it starts, resumes and stops, and the state that its checkpoints hold beside the configuration."""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import socket
from pathlib import Path

import torch

from . import checkpoint
from .config import FIELDS, default_run_dir, resolve, short, stored, to_yaml
from .data import Batches, derived_seed
from .distributed import average, broadcast, on_rank_zero, parallel, rank
from .ema import EMA
from .errors import Diverged, UserError
from .precision import Precision

try:
    import fcntl
except ImportError:  # not on Windows: two processes on one run directory are not found out there
    fcntl = None

STATISTICS = ("loss_D", "loss_G", "real_logits", "fake_logits", "accuracy_D")  # of a step: means over its images
# What the optimizers keep for each parameter, beside the number of steps.
MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}
DISK_RESERVE = 100 * 2**20  # bytes beside the checkpoints: pictures and logs


# ---- Start and resume ----------------------------------------------------------------------------------------------


def prepare(flags, dry_run=False):
    """From the typed flags to the Config of a new run, or of the one that --resume names, its run_dir filled in.

    Says which preset was taken. dry_run: print the settings and exit instead. UserError for what cannot be.
    """
    config, preset = (broadcast(on_rank_zero(_resumed, flags)), None) if "resume" in flags else resolve(flags)
    config = dataclasses.replace(config, run_dir=config.resume or config.run_dir or str(default_run_dir(config)))
    if dry_run:
        if rank() == 0:
            print(f"# preset: {preset or 'none'}\n# run_dir: {config.run_dir}\n{to_yaml(config)}", end="")
        raise SystemExit
    if not config.resume:
        on_rank_zero(refuse_existing, config.run_dir)
    if preset and rank() == 0:
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
    config = checkpoint.config_of(*checkpoint.load_newest(run_dir)[:2])
    for name, value in flags.items():
        if name in ("run_dir", "config"):
            raise UserError(f"--{name} has no place beside --resume: {run_dir} has its own")
        if name != "resume" and value != getattr(config, name) and not FIELDS[name].metadata["resumable"]:
            raise UserError(
                f"--{name} {value} cannot change in a run that is resumed: {run_dir} has {getattr(config, name)}. "
                "Start a new run for it"
            )
    return dataclasses.replace(config, **flags)


def disk_use(state, keep):
    """Bytes that the checkpoints that are kept take, the one that is being written included."""
    networks = [state.G, state.D] + ([state.ema.G] if state.ema else [])
    values = sum(tensor.numel() * tensor.element_size() for net in networks for tensor in net.state_dict().values())
    adam = 2 * sum(p.numel() * p.element_size() for net in (state.G, state.D) for p in net.parameters())
    return (values + adam) * (keep + 1)


def check_disk(run_dir, state, keep):
    """Raise UserError where the checkpoints that will be kept would not fit on the disk."""
    needed, free = disk_use(state, keep) + DISK_RESERVE, shutil.disk_usage(existing_parent(run_dir)).free
    if needed > free:
        raise UserError(
            f"{run_dir} may need {needed / 2**20:,.0f} MiB for its checkpoints and pictures, and "
            f"{free / 2**20:,.0f} MiB are free there; choose another --run_dir or a smaller --keep"
        )


def make_folders(run_dir):
    """Make a run's directory, where it does not exist. UserError where it cannot be."""
    try:
        for name in ("samples", "checkpoints", "plots"):
            (run_dir / name).mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK):
            raise PermissionError(errno.EACCES, "it cannot be written to")
    except OSError as error:
        raise UserError(f"cannot write into {run_dir}: {error.strerror}") from error


@contextlib.contextmanager
def locked(run_dir):
    """Keep other processes from training in a run directory, which has to exist. UserError names who is there.

    The system drops the lock with the process, however that ends; the file that stays behind then locks nothing.
    """
    if fcntl is None or rank() > 0:
        yield
        return
    path = Path(run_dir) / ".lock"
    try:
        file = _open_and_lock(path)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8")[:200] if path.exists() else ""
        raise UserError(f"{run_dir} is being trained by {holder or 'another process'}") from None
    except PermissionError as error:
        raise UserError(f"cannot write into {run_dir}: {error.strerror}") from error
    except OSError:  # a network file system without locks
        yield
        return
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_and_lock(path):
    """The locked file of this name: another one than was opened, where its holder removed that in between."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def refuse_started(run_dir):
    """Raise UserError where another process has trained here since refuse_existing() looked."""
    if checkpoint.checkpoints(run_dir):
        raise UserError(f"{run_dir} was started by another process meanwhile. Go on with --resume {run_dir}")


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
        self.seed = config.seed
        self.batches = Batches(images.images.to(device), config.batch_size, config.seed)
        self.data_sha256 = images.sha256()
        # One stream for z, dequantization and interpolation, apart from torch's global one, which libraries may use.
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.parallel = {name: parallel(network, device) for name, network in (("G", self.G), ("D", self.D))}
        self.step = self.rollbacks = 0
        # The STATISTICS of the steps since the last line of the log: of this rank, and of all
        self.pending, self.averaged = [], []

    @property
    def scored(self):
        """The generator that is sampled and scored: the EMA where there is one."""
        return self.ema.G if self.ema else self.G

    def history(self):
        """The STATISTICS over all ranks of each step since the last line of the log. Every rank has to ask."""
        if self.pending:
            self.averaged += average(torch.stack(self.pending))
            self.pending = []
        return torch.stack(self.averaged) if self.averaged else torch.empty(0, len(STATISTICS))

    def change_seed(self):
        """Other noise and another data order from here on, as after a rollback."""
        self.rollbacks += 1
        seed = derived_seed(self.seed, self.rollbacks)
        self.random.manual_seed(seed)
        self.batches.change_seed(seed)

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
            "pending": torch.stack(self.averaged) if self.averaged else None,
            "rollbacks": self.rollbacks,
        }

    def load_state_dict(self, content, path):
        """Take over what a loaded checkpoint holds; path is for the messages. UserError where it does not fit.

        Returns sentences about what could not be taken over.
        """
        notes = []
        if content["data"].get("sha256") != self.data_sha256:
            raise UserError(f"{path} was trained on other data than there are now: the same --data_dir, unchanged?")
        networks = {"G": self.G, "D": self.D} | ({"ema": self.ema.G} if self.ema else {})
        for name, network in networks.items():
            checkpoint.load_weights(network, content[name], path, "EMA" if name == "ema" else name)
        for name, optimizer in (("opt_G", self.opt_G), ("opt_D", self.opt_D)):
            with checkpoint.fitting(path, f"optimizer of {name[-1]}"):
                _load_optimizer(optimizer, content[name])
        with checkpoint.fitting(path, "random state, data order or scaler"):
            if content["random"].shape == self.random.get_state().shape:
                self.random.set_state(content["random"])
            else:
                self.random.manual_seed(derived_seed(self.seed, content["step"]))
                notes.append("the checkpoint is of another kind of device, so that other random numbers follow")
            self.batches.load_state_dict(content["data"])
            for name, precision in self.precision.items():
                precision.load_state_dict(content.get("scalers", {}).get(name))
            pending = content["pending"]
            if pending is not None and pending.size(-1) != len(STATISTICS):
                pending = None
                notes.append(f"{path} has other statistics of its last steps, which are left out of the next line")
            if pending is None:
                pending = torch.empty(0)
            rows = list(pending.to(self.batches.images.device, torch.float32).view(-1, len(STATISTICS)))
            rollbacks = content.get("rollbacks", 0)
            if type(rollbacks) is not int or rollbacks < 0:
                raise ValueError(f"rollbacks {short(rollbacks)}")
        self.step, self.rollbacks, self.pending, self.averaged = content["step"], rollbacks, [], rows
        return notes


def _load_optimizer(optimizer, content):
    """optimizer.load_state_dict(content), with every part checked: what does not fit would fail in the next step."""
    settings = [{name: group[name] for name in group if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(content)
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)  # the settings are the configuration's, and torch's versions have different ones
        for parameter in group["params"] if optimizer.state else []:
            state = optimizer.state[parameter]
            expected = dict.fromkeys(MOMENTS[type(optimizer)], parameter.shape) | {"step": ()}
            if {name: tuple(value.shape) for name, value in state.items()} != expected:
                raise ValueError(f"not {', '.join(expected)} of its parameters")
            for name in MOMENTS[type(optimizer)]:  # fused updates go through memory: in the parameter's layout
                state[name] = torch.empty_like(parameter).copy_(state[name])


def _make_optimizer(config, network, lr):
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr, foreach=True)
    return torch.optim.Adam(network.parameters(), lr, betas=config.betas, fused=True)


def check_weights(state):
    """Raise Diverged where a weight, or what a normalization keeps beside it, is not finite."""
    for name, network in (("G", state.G), ("D", state.D)):
        if not all(value.isfinite().all() for value in network.state_dict().values()):
            raise Diverged(f"a weight of {name} is not finite at step {state.step}")


def save_checkpoint(run_dir, state, config):
    """Save the run's whole state and thin the older checkpoints; Diverged instead where a weight is not finite."""
    check_weights(state)
    path = checkpoint.checkpoint_path(run_dir, state.step)

    def write():
        checkpoint.save(path, {"format": checkpoint.FORMAT, "config": stored(config), **state.state_dict()})
        checkpoint.thin(run_dir, config.keep)

    on_rank_zero(write)
    return path


# ---- Signals -------------------------------------------------------------------------------------------------------


class Signals:
    """Within it, signals are noted for the loop: SIGINT, SIGTERM and SIGHUP to stop, SIGUSR1 to save.

    A second SIGINT ends the process, but not under torchrun, which sends one of its own. nohup's SIGHUP stays ignored.
    """

    stop = save = 0

    def __enter__(self):
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has two of them
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        if "SIGHUP" in dir(signal) and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number, frame):
        if signal.Signals(number).name == "SIGUSR1":
            self.save = 1
            return
        if self.stop and number == signal.SIGINT and "LOCAL_RANK" not in os.environ:
            raise KeyboardInterrupt
        self.stop = number

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)
