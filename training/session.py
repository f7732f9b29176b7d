"""A training session: open a run, begin it, roll it back if it diverges, and close it."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from datasets import Images, load_split, steps_of, trained_on
from evaluation.evaluator import Evaluator
from settings.config import Config, default_run_dir
from utils.console import command
from utils.distributed import agree, broadcast, on_rank_zero, rank_zero_first, say_once, select_device, world_size
from utils.errors import Diverged, UserError, explaining_memory, refuse_if
from utils.precision import keep_memory, set_deterministic, set_tf32, settled
from utils.threads import by_work, share, threads, work

from . import monitor
from .checkpoints.checkpoint import load
from .checkpoints.fine_tune import start_from
from .checkpoints.record import recorded_threads
from .checkpoints.resume import take_over
from .checkpoints.run_dir import check_disk, checkpoints, locked, make_folders, refuse_existing
from .reporting.logger import Logger, Quiet, summary_writer
from .run import Run
from .state import State, disk_use, save_checkpoint

MAX_ROLLBACKS = 3


@contextlib.contextmanager
def opened(config: Config, evaluator: Evaluator | None = None, images: Images | None = None) -> Iterator[Run]:
    """Open a run at step 0 or at config.resume's last checkpoint, after all checks.

    evaluator and images: made by the caller, or None. However the run ends, the reason is recorded and its pictures
    are drawn. Raises UserError if anything is missing.
    """
    run_dir = Path(config.resume or config.run_dir or default_run_dir(config))
    if not config.resume:
        on_rank_zero(refuse_existing, run_dir)
    check_shares(config)
    device = set_up(config)
    config = dataclasses.replace(config, amp=broadcast(on_rank_zero(settled, config.amp, device)))
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
        summary_writer()
    if evaluator is None and config.eval_every:
        evaluator = Evaluator(config, everything, device, say=say_once)
        evaluator.plans(config.protocol[:1])

    # From here on the run exists: its directory, lock, configuration and log.
    on_rank_zero(make_folders, run_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads(threads_of(config, state)))
        on_rank_zero(stack.enter_context, locked(run_dir))
        if not config.resume:
            meanwhile = f"{run_dir} was started by another process meanwhile. Continue it with "
            on_rank_zero(refuse_if, checkpoints(run_dir), meanwhile + command("--resume", run_dir))
        changes = take_over(run_dir, state, config) if config.resume else []
        logger = on_rank_zero(Logger, run_dir, config.tensorboard, state.step) or Quiet()
        stack.enter_context(contextlib.closing(logger))
        run = Run(config, run_dir, state, evaluator, logger)
        stack.enter_context(run.signals.noted())
        if images.origin and images.origin.skipped:
            run.record.now["skipped_images"] = dict(images.origin.skipped)
        if state.classes:
            run.record.now["classes"] = [*state.classes.names[:2]]  # two examples for generate.py --labels
        monitor.announce(run, images, [*changes, *run.record.changes()], taken)
        with recorded(run):
            monitor.show_data(run, images)
            yield run


def set_up(config: Config) -> torch.device:
    """Select a run's device and apply its settings for determinism and precision."""
    device = select_device(config.device)
    if config.deterministic:
        set_deterministic()
    if device.type == "cuda":
        set_tf32(config.tf32)
    else:
        keep_memory()
    return device


def threads_of(config: Config, state: State) -> int:
    """The CPU threads of a run: config.threads, or as before a resume, or chosen by the networks' work."""
    if config.threads:
        return config.threads
    before = recorded_threads(config.resume) if config.resume else None
    if before and before <= share():
        return before
    return by_work(work(state.G, state.D, config.batch_size // world_size()))


def check_shares(config: Config) -> None:
    """Raise UserError if a batch cannot be split evenly over the ranks and --accumulate's parts."""
    parts = world_size() * config.accumulate
    for name in ("batch_size", "batch_size_G"):
        size = getattr(config, name)
        if size and (size % parts or size < 2 * parts):
            raise UserError(
                f"{name} {size} cannot be split evenly over {world_size()} processes in {config.accumulate} parts each "
                f"(--accumulate), of two images or more; choose a multiple of {parts}"
            )


def begin(run: Run) -> None:
    """Prepare for the next step at the start and after a rollback; a new run also samples and saves."""
    run.state.G.train()
    run.state.D.train()
    if run.state.step == 0 and not run.state.rollbacks:
        monitor.sample(run)
        if run.config.audit_every:
            monitor.audit(run)
        run.path = save_checkpoint(run.run_dir, run.state, run.config)
    on_rank_zero(run.record.save, run.state.step)
    run.show.begin(run.state.step)
    run.start_clock()


def roll_back(run: Run, error: Diverged) -> None:
    """Go back to the last good checkpoint with another seed. Raises Diverged, with advice, if that is not allowed."""
    state, found = run.state, checkpoints(run.run_dir)
    if run.config.on_nan == "stop" or state.rollbacks == MAX_ROLLBACKS or not found:
        last = f"the last good checkpoint is {found[-1][1] if found else 'none'}, after {state.rollbacks} rollbacks"
        raise Diverged(f"{error}; {last}. A smaller learning rate or another normalization may help") from error
    state.load(load(found[-1][1]))
    agree(0)  # wait until all ranks have read the file that is overwritten next
    state.change_seed()
    save_checkpoint(run.run_dir, state, run.config)  # so that a resume continues with the new seed and count
    run.logger.rewind(state.step)
    run.logger.say(f"rollback    {error}; back to step {state.step:,} with another seed ({state.rollbacks}.)")


@contextlib.contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Record how a run ends: always in its log, also in config.yaml if it diverges. Then draw its pictures."""
    try:
        yield
    except Diverged as error:
        run.ended = run.record.now["diverged"] = str(error)
        on_rank_zero(run.record.save, run.state.step)
        raise
    except OSError as error:
        run.ended = f"cannot write: {error}"
        again = f"{command('--resume', run.run_dir)} continues once that is fixed"
        raise UserError(f"cannot write into {run.run_dir}: {error}; {again}") from error
    except BaseException as error:
        run.ended = str(error) or type(error).__name__
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk has already been reported
            run.logger.note(f"ended       at step {run.state.step:,}: {run.ended}")
        run.show.end(run.state.step, run.ended)
