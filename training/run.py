"""The run that the training loop sees: what is due after each step, how long a step takes, and what it is saved as."""

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
PREVIEW_SEED = 20180216  # of the fixed z: the same for every run, so that runs compare


class Run:
    """A run's state, and what the loop asks for besides the mathematics. Under torchrun rank 0 alone writes."""

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
        """Take the time of steps from here on: what came before is no part of it."""
        self.clock = time.perf_counter(), self.state.step

    def seconds_per_step(self) -> float:
        """Since the clock was started."""
        began, first = self.clock
        return (time.perf_counter() - began) / (self.state.step - first)

    def progress(self) -> tqdm:
        """The bar over all steps."""
        total, initial, hidden = self.config.total_steps, self.state.step, rank() > 0
        return progress(total=total, initial=initial, unit="step", smoothing=0.05, delay=0, disable=hidden)

    def explaining_memory(self) -> contextlib.AbstractContextManager[None]:
        """Within it, what to do is said where a step needs more memory than there is."""
        config = self.config
        sizes = f"batch_size {config.batch_size}" + (f" and {config.batch_size_G} for G" if config.batch_size_G else "")
        advice = (
            f"compute each batch in parts with --accumulate {2 * config.accumulate}, which leaves the update as it is "
            "but for batch norm, or start a run with a smaller --batch_size"
        )
        return explaining_memory(sizes, advice)

    def due(self) -> set[str]:
        """What follows this step, of log, sample, audit, score, save and stop; the same on every rank."""
        config, step = self.config, self.state.step
        every = {name: getattr(config, f"{name}_every") for name in ("log", "sample", "audit", "save")}
        due = {name for name, steps in every.items() if steps and (step % steps == 0 or step == config.total_steps)}
        if self.evaluator and config.eval_every and step % config.eval_every == 0:
            due.add("score")
        stopped, self.asked = agree(self.signals.stop, self.signals.save)
        return due | ({"save", "stop"} if stopped else {"save"} if self.asked else set())

    def save(self) -> None:
        """Save a checkpoint, and answer the signal that asked for it, to whichever rank, if one did."""
        self.logger.sync()
        self.path = save_checkpoint(self.run_dir, self.state, self.config)
        on_rank_zero(self.record.save, self.state.step)
        if self.asked:
            self.signals.save = 0
            self.logger.say(f"SIGUSR1     saved {self.path}")

    def end(self) -> Path:
        """The last checkpoint's path; Stopped where a signal ended the run before its last step, or in it."""
        (stopped,) = agree(self.signals.stop)
        if stopped:
            again = command("--resume", self.run_dir)
            where = f"stopped after step {self.state.step:,} and saved {self.path}. Go on with: {again}"
            raise Stopped(f"{signal.Signals(stopped).name}: {where}", stopped)
        return self.path
