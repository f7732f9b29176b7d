"""A run that is going on: what the loop asks of it besides the mathematics, and what it is begun and ended with."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import Images, load_split, steps_of, trained_on
from evaluation.evaluator import Evaluator
from settings.config import Config, default_run_dir
from settings.layers import CONFIGS_DIR
from utils.console import command, progress
from utils.distributed import (
    agree,
    on_rank_zero,
    rank,
    rank_zero_first,
    say_once,
    select_device,
    world_size,
)
from utils.errors import Diverged, Stopped, UserError, explaining_memory
from utils.precision import keep_memory, set_deterministic, set_tf32
from utils.signals import Signals
from utils.threads import Waiting, by_work, share, threads, work

from . import monitor
from .checkpoints.fine_tune import start_from
from .checkpoints.record import Record, recorded_threads
from .checkpoints.resume import take_over
from .checkpoints.run_dir import check_disk, checkpoint_path, locked, make_folders, refuse_existing, refuse_started
from .reporting import page
from .reporting.logger import Logger, Quiet, check_tensorboard
from .reporting.showing import Show
from .state import State, disk_use, save_checkpoint

LONG_AFTER, DAY = 20, 86_400  # seconds until a run's time is told, where it is over the second


class Run:
    """A run's state, and what the loop asks for besides the mathematics. Under torchrun rank 0 alone writes."""

    def __init__(
        self, config: Config, run_dir: Path, state: State, evaluator: Evaluator | None, logger: Logger | Quiet
    ) -> None:
        self.config, self.run_dir, self.state, self.evaluator, self.logger = config, run_dir, state, evaluator, logger
        self.signals, self.waiting = Signals(), Waiting()
        self.record = Record(run_dir, config, state.device, state.step)
        self.z = monitor.preview_latents(config.z_dim, state.device)
        self.path = checkpoint_path(run_dir, state.step)
        self.show, self.ended, self.long_told = Show(self), "finished", False
        self.start_clock()

    def begin(self) -> None:
        """What comes before the first step: of a new run, its first samples and checkpoint."""
        self.state.G.train()
        self.state.D.train()
        if self.state.step == 0 and not self.state.rollbacks:
            monitor.sample(self)
            if self.config.audit_every:
                monitor.audit(self)
            self.path = save_checkpoint(self.run_dir, self.state, self.config)
        on_rank_zero(self.record.save, self.state.step)
        self.show.begin()
        self.start_clock()
        self.began = self.clock

    def start_clock(self) -> None:
        """Take the time of steps from here on."""
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
        self.say_if_long()
        every = {name: getattr(config, f"{name}_every") for name in ("log", "sample", "audit", "save")}
        due = {name for name, steps in every.items() if steps and (step % steps == 0 or step == config.total_steps)}
        if self.evaluator and config.eval_every and step % config.eval_every == 0:
            due.add("score")
        stopped, self.asked = agree(self.signals.stop, self.signals.save)
        return due | ({"save", "stop"} if stopped else {"save"} if self.asked else set())

    def say_if_long(self) -> None:
        """Once, as soon as it can be told: that the run will take over a day, and what takes less."""
        began, first = self.began
        if self.long_told or (passed := time.perf_counter() - began) < LONG_AFTER:
            return
        self.long_told = True
        left = passed / max(1, self.state.step - first) * (self.config.total_steps - self.state.step)
        if left > DAY:
            self.logger.say(f"long        about {page.duration(left)} to go at this speed{advice_for(self.config)}")

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


def advice_for(config: Config) -> str:
    """What trains the same data in less time: their small preset, if there is one and it is not that already."""
    small = CONFIGS_DIR / f"{config.dataset}_dcgan_small.yaml"
    if not small.exists() or config.base_channels == 16:
        return ""
    shorter = command("python", "main.py", "--dataset", config.dataset, "--size", "small")
    return f"; for two CPU cores there is {shorter}"


@contextlib.contextmanager
def opened(config: Config, evaluator: Evaluator | None = None, images: Images | None = None) -> Iterator[Run]:
    """A run from step 0, or from config.resume's last checkpoint, with all that it needs checked before its first step.

    evaluator and images: where the caller has made them already. Raises UserError for what is missing; from its start
    on, errors within are recorded, and its pictures made however it ends.
    """
    run_dir = Path(config.resume or config.run_dir or default_run_dir(config))
    if not config.resume:
        on_rank_zero(refuse_existing, run_dir)
    check_shares(config)
    device = set_up(config)
    if images is None:
        with rank_zero_first():
            images = load_split(config)
    everything, images = images, trained_on(images, config.num_images)
    if config.num_epochs is not None:
        steps = steps_of(config.num_epochs, len(images.images), config.batch_size, config.n_dis)
        config = dataclasses.replace(config, total_steps=steps, num_epochs=None)
    with explaining_memory("the networks and the data set", "choose a smaller --base_channels or --image_size"):
        state = State(config, images, device)
    taken = list(start_from(state, config)) if config.init_from and not config.resume else []
    on_rank_zero(check_disk, run_dir, disk_use(state, config.keep))
    if config.tensorboard:
        check_tensorboard()
    if evaluator is None and config.eval_every:
        evaluator = Evaluator(config, everything, device, say=say_once)
        evaluator.check(config.protocol[:1])

    # From here on the run exists: its directory, lock, configuration and log.
    on_rank_zero(make_folders, run_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads(threads_of(config, state)))
        on_rank_zero(stack.enter_context, locked(run_dir))
        if not config.resume:
            on_rank_zero(refuse_started, run_dir)
        changes = take_over(run_dir, state, config) if config.resume else []
        logger = on_rank_zero(Logger, run_dir, config.tensorboard, state.step) or Quiet()
        stack.enter_context(contextlib.closing(logger))
        run = Run(config, run_dir, state, evaluator, logger)
        stack.enter_context(run.signals.noted())
        if images.origin and images.origin.skipped:
            run.record.now["skipped_images"] = dict(images.origin.skipped)
        monitor.announce(run, images, [*changes, *run.record.changes()], taken)
        with recorded(run):
            monitor.show_data(run, images)
            yield run


def threads_of(config: Config, state: State) -> int:
    """The CPU threads of a run's steps: those asked for, those it had before, or those that its networks are worth."""
    before = recorded_threads(config.resume) if config.resume else None
    if config.threads:
        return config.threads
    if before and before <= share():
        return before
    return by_work(work(state.G, state.D, config.batch_size // world_size()))


def check_shares(config: Config) -> None:
    """Raise UserError where the ranks' shares of a batch, or their parts, would not be of one size."""
    parts = world_size() * config.accumulate
    for name in ("batch_size", "batch_size_G"):
        size = getattr(config, name)
        if size and (size % parts or size < 2 * parts):
            raise UserError(
                f"{name} {size} cannot be split evenly over {world_size()} processes in {config.accumulate} parts each "
                f"(--accumulate), of two images or more; choose a multiple of {parts}"
            )


def set_up(config: Config) -> torch.device:
    """The device that a run computes on, made ready as it asks."""
    device = select_device(config.device)
    if config.deterministic:
        set_deterministic()
    if device.type == "cuda":
        set_tf32(config.tf32)
    else:
        keep_memory()
    return device


@contextlib.contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Within it, how a run ends is kept in its log, and its record where it diverges. Then its pictures are made."""
    try:
        yield
    except Diverged as error:
        run.ended = run.record.now["diverged"] = str(error)
        on_rank_zero(run.record.save, run.state.step)
        raise
    except OSError as error:
        run.ended = f"cannot write: {error}"
        again = f"{command('--resume', run.run_dir)} goes on when it can"
        raise UserError(f"cannot write into {run.run_dir}: {error}; {again}") from error
    except BaseException as error:
        run.ended = str(error) or type(error).__name__
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk has been told of
            run.logger.note(f"ended       at step {run.state.step:,}: {run.ended}")
        monitor.finish_pictures(run)
