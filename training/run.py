"""The run that the training loop uses: tasks due after each step, seconds per step, and checkpoints."""

import contextlib
import signal
import time
from pathlib import Path

import torch
from tqdm import tqdm

from evaluation.evaluator import Evaluator
from settings.config import Config
from utils.console import command, progress
from utils.distributed import agree, on_rank_zero, rank
from utils.errors import Stopped, explaining_memory
from utils.signals import Signals

from .checkpoints.record import Record
from .checkpoints.run_dir import checkpoint_path
from .reporting.logger import Logger, Quiet
from .reporting.showing import Show
from .state import State, save_checkpoint

PREVIEW = 100  # samples in a grid
PREVIEW_SEED = 20180216  # of the fixed z: the same for every run, so that runs can be compared


class Run:
    """A run's state, and everything the loop needs besides the mathematics. Under torchrun only rank 0 writes."""

    def __init__(
        self, config: Config, run_dir: Path, state: State, evaluator: Evaluator | None, logger: Logger | Quiet
    ) -> None:
        self.config, self.run_dir, self.state, self.evaluator, self.logger = config, run_dir, state, evaluator, logger
        self.signals, self.asked = Signals(), 0
        self.record = Record(run_dir, config, state.device, state.step)
        fixed = torch.Generator().manual_seed(PREVIEW_SEED)
        self.z = torch.randn(PREVIEW, config.z_dim, generator=fixed).to(state.device)
        self.path = checkpoint_path(run_dir, state.step)
        self.show = Show(run_dir, config, logger.say, state.step)
        self.ended = "finished"
        self.start_clock()

    def start_clock(self) -> None:
        """Start timing steps from here; earlier time does not count."""
        self.clock = time.perf_counter(), self.state.step

    def seconds_per_step(self) -> float:
        """The mean seconds per step since the clock was started."""
        began, first = self.clock
        return (time.perf_counter() - began) / (self.state.step - first)

    def progress(self) -> tqdm:
        """A progress bar over all steps."""
        total, initial, hidden = self.config.total_steps, self.state.step, rank() > 0
        return progress(total=total, initial=initial, unit="step", smoothing=0.05, delay=0, disable=hidden)

    def explaining_memory(self) -> contextlib.AbstractContextManager[None]:
        """Turn out-of-memory errors within it into a UserError with advice."""
        config = self.config
        sizes = f"batch_size {config.batch_size}" + (f" and {config.batch_size_G} for G" if config.batch_size_G else "")
        advice = (
            f"compute each batch in parts with --accumulate {2 * config.accumulate}, which only changes the update "
            "under batch norm, or start a run with a smaller --batch_size"
        )
        return explaining_memory(sizes, advice)

    def due(self) -> set[str]:
        """The tasks due after this step (log, sample, audit, score, save, stop); the same on every rank."""
        config, step = self.config, self.state.step
        every = {name: getattr(config, f"{name}_every") for name in ("log", "sample", "audit", "save")}
        due = {name for name, steps in every.items() if steps and (step % steps == 0 or step == config.total_steps)}
        if self.evaluator and config.eval_every and step % config.eval_every == 0:
            due.add("score")
        stopped, self.asked = agree(self.signals.stop, self.signals.save)
        return due | ({"save", "stop"} if stopped else {"save"} if self.asked else set())

    def save(self) -> None:
        """Save a checkpoint, and report it if a signal to any rank asked for it."""
        self.logger.sync()
        self.path = save_checkpoint(self.run_dir, self.state, self.config)
        on_rank_zero(self.record.save, self.state.step)
        if self.asked:
            self.signals.save = 0
            self.logger.say(f"SIGUSR1     saved {self.path}")

    def end(self) -> Path:
        """Return the last checkpoint's path. Raises Stopped if a signal ended the run."""
        (stopped,) = agree(self.signals.stop)
        if stopped:
            again = command("--resume", self.run_dir)
            where = f"stopped after step {self.state.step:,} and saved {self.path}. Continue with: {again}"
            raise Stopped(f"{signal.Signals(stopped).name}: {where}", stopped)
        return self.path
