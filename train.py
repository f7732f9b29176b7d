"""Train a GAN: the mathematics of the two updates, and the loop around them (Miyato et al. 2018, section 4)."""

import contextlib
import dataclasses
import signal
import time
from pathlib import Path

import torch

from losses import LOSSES, REGULARIZERS, accuracy
from models.spectral_norm import iteration
from utils import checkpoint, data
from utils.config import default_run_dir, differences
from utils.distributed import (
    agree,
    broadcast,
    check_shares,
    gradients_stay_local,
    local,
    on_rank_zero,
    processes,
    rank,
    rank_zero_first,
    select_device,
)
from utils.errors import Diverged, Stopped, UserError, run_as_script
from utils.evaluator import Evaluator
from utils.logger import Logger, Quiet, check_tensorboard, progress
from utils.monitor import (
    PROBED,
    announce,
    check_finite,
    finish_pictures,
    log_line,
    preview_latents,
    save_audit,
    save_samples,
    score,
)
from utils.parser import parse_args
from utils.precision import FULL, keep_memory, set_deterministic, set_tf32
from utils.record import Record
from utils.run import (
    Signals,
    State,
    check_disk,
    check_weights,
    locked,
    make_folders,
    prepare,
    refuse_existing,
    refuse_started,
    save_checkpoint,
)

MAX_ROLLBACKS = 3


# ---- One update each -----------------------------------------------------------------------------------------------


def discriminator_step(
    G,
    D,
    d_loss,
    opt_D,
    real,
    z,
    regularizer=REGULARIZERS["none"],
    weight=0.0,
    alpha=None,
    joint=True,
    precision=FULL,
    accumulate=1,
):
    """One update of D on real images (N, C, H, W) and as many fresh samples G(z), z (N, z_dim).

    alpha (N, 1, 1, 1) in [0, 1]: where the gradient penalty looks, between real and fake. joint: one forward of D for
    both halves, so one power iteration an update as in the paper's algorithm 1; batch norm in D needs two, one a half.
    precision: of the networks; losses and penalties are computed in full precision. accumulate: parts, of one size, in
    which D sees the batch; u and v move in the first alone, and batch norm in D takes each part's own statistics.
    Returns detached (loss, real_logits, fake_logits); the loss includes the penalty.
    """
    with torch.no_grad():
        fake = precision.call(G, z)
    opt_D.zero_grad()
    found = []
    alphas = [None] * accumulate if alpha is None else alpha.chunk(accumulate)
    parts = zip(real.chunk(accumulate), fake.chunk(accumulate), alphas, strict=True)
    for i, (real, fake, alpha) in enumerate(parts):
        with part(i, accumulate, D, D):
            if joint:
                real_logits, fake_logits = precision.call(D, torch.cat([real, fake])).split(len(real))
            else:
                real_logits, fake_logits = precision.call(D, real), precision.call(D, fake)
            loss = d_loss(real_logits, fake_logits)
            if regularizer.penalty:
                with iteration(D, False):  # its forward is of the same update
                    loss = loss + weight * regularizer.penalty(D, real, fake, alpha)
            precision.backward(loss / accumulate)
        found.append((loss.detach().view(1), real_logits.detach(), fake_logits.detach()))
    precision.update(opt_D)
    if regularizer.project:
        regularizer.project(D, weight)
    losses, real_logits, fake_logits = (torch.cat(parts) for parts in zip(*found))
    return losses.mean(), real_logits, fake_logits


def generator_step(G, D, g_loss, opt_G, z, precision=FULL, accumulate=1):
    """One update of G on samples G(z), z (N, z_dim). D's parameters are frozen meanwhile. Returns the detached loss.

    accumulate: parts in which the batch is computed; batch norm in G then takes each part's own statistics.
    """
    D.requires_grad_(False)
    opt_G.zero_grad()
    losses, parts = [], z.chunk(accumulate)
    for i, z in enumerate(parts):
        with part(i, accumulate, G, G, D):
            loss = g_loss(precision.call(D, precision.call(G, z)))
            precision.backward(loss / accumulate)
        losses.append(loss.detach())
    precision.update(opt_G)
    D.requires_grad_(True)
    return torch.stack(losses).mean()


def part(number, accumulate, updated, *called):
    """A context for the forwards and the backward of part `number` of a batch.

    updated: the network whose gradients the other ranks wait for, till the last part. called: those whose u and v move
    in the first part alone.
    """
    contexts = contextlib.ExitStack()
    if accumulate > 1:
        for network in called:
            contexts.enter_context(iteration(network, number == 0))
        if number < accumulate - 1:
            contexts.enter_context(gradients_stay_local(updated))
    return contexts


def step(state, config):
    """n_dis updates of D, each on a fresh real batch and fresh samples, then one of G and of its moving average."""
    d_loss, g_loss = LOSSES[config.loss]
    regularizer = REGULARIZERS[config.regularizer]
    weight = config.regularizer_weight or regularizer.default_weight
    joint = "batch" not in config.d_norm
    random, device = state.random, state.batches.images.device
    set_learning_rates(state, config)
    # Random numbers are drawn for the whole batch on every rank: a run is the same on any number of them.
    for _ in range(config.n_dis):
        real = data.to_float(state.batches.next(), random)
        z = torch.randn(len(real), config.z_dim, generator=random, device=device)
        alpha = torch.rand(len(real), 1, 1, 1, generator=random, device=device)
        loss_D, real_logits, fake_logits = discriminator_step(
            state.parallel["G"],
            state.parallel["D"],
            d_loss,
            state.opt_D,
            local(real),
            local(z),
            regularizer,
            weight,
            local(alpha),
            joint,
            state.precision["D"],
            config.accumulate,
        )
    z = torch.randn(config.batch_size_G or config.batch_size, config.z_dim, generator=random, device=device)
    loss_G = generator_step(
        state.parallel["G"], state.D, g_loss, state.opt_G, local(z), state.precision["G"], config.accumulate
    )
    state.step += 1
    if state.ema:
        state.ema.update(state.G, state.step)
    accuracy_D = accuracy(config.loss, real_logits, fake_logits)
    state.pending.append(torch.stack([loss_D, loss_G, real_logits.mean(), fake_logits.mean(), accuracy_D]))


def set_learning_rates(state, config):
    """The learning rates of the coming step: constant, or falling linearly from step 0 to 0 at the end."""
    factor = 1 - state.step / config.total_steps if config.lr_decay == "linear" else 1.0
    for optimizer, lr in ((state.opt_G, config.lr_G), (state.opt_D, config.lr_D)):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor


# ---- The run -------------------------------------------------------------------------------------------------------


def train(config, evaluator=None, images=None):
    """Train to config.total_steps, from step 0 or from config.resume's last checkpoint. Returns the last one's path.

    evaluator and images: where the caller has made them already. Raises UserError before the first step for anything
    that is missing, Diverged for a loss or weight that is not finite, Stopped after a signal to stop, all saved.
    """
    run_dir = Path(config.resume or config.run_dir or default_run_dir(config))
    if not config.resume:
        on_rank_zero(refuse_existing, run_dir)
    check_shares(config)
    device = select_device(config.device)
    if config.deterministic:
        set_deterministic()
    if device.type == "cuda":
        set_tf32(config.tf32)
    else:
        keep_memory()
    if images is None:
        with rank_zero_first():
            images = data.load_split(config)
    if config.num_epochs is not None:
        steps = data.steps_of(config.num_epochs, len(images.images), config.batch_size, config.n_dis)
        config = dataclasses.replace(config, total_steps=steps, num_epochs=None)
    with explaining_memory("the networks and the data set", "choose a smaller --base_channels or --image_size"):
        state = State(config, images, device)
    if config.compile and device.type == "cuda":
        state.G.compile()
        state.D.compile()
    on_rank_zero(check_disk, run_dir, state, config.keep)
    if config.tensorboard:
        check_tensorboard()
    if evaluator is None and config.eval_every:
        evaluator = Evaluator(config, images, device, say=print if rank() == 0 else lambda text: None)
        evaluator.check(config.protocol[:1])

    # From here on the run exists: its directory, lock, configuration and log.
    on_rank_zero(make_folders, run_dir)
    with contextlib.ExitStack() as stack:
        on_rank_zero(stack.enter_context, locked(run_dir))
        if not config.resume:
            on_rank_zero(refuse_started, run_dir)
        changes = resume(run_dir, state, config) if config.resume else []
        logger = on_rank_zero(Logger, run_dir, config.tensorboard, state.step) or Quiet()
        stack.enter_context(contextlib.closing(logger))
        stop = stack.enter_context(Signals())
        record = Record(run_dir, config, device, state.step)
        announce(logger, run_dir, config, state, images, device, [*changes, *record.changes()])
        try:
            return train_on(config, run_dir, state, evaluator, logger, record, stop)
        except Diverged as error:
            record.now["diverged"] = str(error)
            on_rank_zero(record.save, state.step)
            raise
        except OSError as error:
            raise UserError(f"cannot write into {run_dir}: {error}; --resume {run_dir} goes on when it can") from error
        finally:
            finish_pictures(run_dir, config, logger)


def resume(run_dir, state, config):
    """Take over the newest checkpoint that is whole. Returns sentences about what is other than it was there."""
    newest = on_rank_zero(checkpoint.load_newest, run_dir)
    path, damaged = broadcast(newest and newest[1:])
    content = newest[0] if newest else checkpoint.load(path)
    notes = state.load_state_dict(content, path)
    if state.step > config.total_steps:
        raise UserError(f"{run_dir} is at step {state.step:,} already, beyond --total_steps {config.total_steps:,}")
    on_rank_zero(checkpoint.set_aside, run_dir, state.step)
    changes = [f"{error}; it is set aside, and {path} taken" for error in damaged] + notes
    if missing := checkpoint.missing_settings(content):
        changes.append(f"{path} is of a version without {', '.join(missing)}: their defaults are taken")
    before = checkpoint.config_of(content, path)
    return changes + [f"{name} {old} -> {new}" for name, (old, new) in differences(before, config).items()]


def train_on(config, run_dir, state, evaluator, logger, record, stop):
    """The loop, and under --on_nan rollback again from the last good checkpoint. Returns the last one's path."""
    while True:
        try:
            return loop(config, run_dir, state, evaluator, logger, record, stop)
        except Diverged as error:
            found = checkpoint.checkpoints(run_dir)
            if config.on_nan == "stop" or state.rollbacks == MAX_ROLLBACKS or not found:
                last = f"the last good checkpoint is {found[-1][1]}" if found else "no checkpoint had been saved"
                tried = f" {state.rollbacks} times it went back, with another seed each." if state.rollbacks else ""
                advice = "A smaller learning rate or another normalization may help"
                raise Diverged(f"{error}; {last}.{tried} {advice}") from error
            state.load_state_dict(checkpoint.load(found[-1][1]), found[-1][1])
            agree(0)  # all have read the file that is written next
            state.change_seed()
            save_checkpoint(run_dir, state, config)  # so that a resume, too, goes on with that seed and count
            logger.rewind(state.step)
            logger.say(f"rollback    {error}; back to step {state.step:,} with another seed ({state.rollbacks}.)")


@contextlib.contextmanager
def explaining_memory(what, advice):
    """Turn torch's error where memory ran out into a UserError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "can't allocate memory" not in str(error):
            raise
        raise UserError(f"out of memory with {what}: {advice} ({error})") from error


def loop(config, run_dir, state, evaluator, logger, record, stop):
    """The steps from state.step to config.total_steps, and what is logged, drawn, scored and saved between them."""
    preview_z = preview_latents(config.z_dim, state.batches.images.device)
    probe_z = preview_z[: min(PROBED, config.batch_size // config.accumulate)]  # no more than a step has room for
    state.G.train()
    state.D.train()
    path = checkpoint.checkpoint_path(run_dir, state.step)
    if state.step == 0 and not state.rollbacks:
        save_samples(run_dir, state, preview_z)
        if config.audit_every:
            save_audit(run_dir, state, preview_z)
        save_checkpoint(run_dir, state, config)
    on_rank_zero(record.save, state.step)
    logged_at, logged_step = time.perf_counter(), state.step
    sizes = f"batch_size {config.batch_size}" + (f" and {config.batch_size_G} for G" if config.batch_size_G else "")
    advice = (
        f"compute each batch in parts with --accumulate {2 * config.accumulate}, which leaves the update as it is but "
        "for batch norm, or start a run with a smaller --batch_size"
    )
    hidden = rank() > 0
    with progress(
        total=config.total_steps, initial=state.step, unit="step", smoothing=0.05, delay=0, disable=hidden
    ) as bar:
        while state.step < config.total_steps:
            with explaining_memory(sizes, advice):
                step(state, config)
            bar.update()

            # Everything below is rare. A signal that comes during it is answered after the next step.
            stopped, asked = agree(stop.stop, stop.save)
            last = state.step == config.total_steps
            log = state.step % config.log_every == 0 or last
            sample = state.step % config.sample_every == 0 or last
            evaluate = evaluator is not None and config.eval_every and state.step % config.eval_every == 0
            audited = config.audit_every and (state.step % config.audit_every == 0 or last)
            save = state.step % config.save_every == 0 or last or stopped or asked
            if not (log or sample or evaluate or audited or save):
                continue

            check_finite(state)
            if log:
                now = time.perf_counter()
                line = log_line(state, (now - logged_at) / (state.step - logged_step), probe_z)
                logger.write(state.step, line)
                bar.set_postfix_str(f"loss_D {line['loss_D']:.3f} loss_G {line['loss_G']:.3f}", refresh=False)
                logged_at, logged_step = time.perf_counter(), state.step
            if sample:
                save_samples(run_dir, state, preview_z)
            if audited:
                save_audit(run_dir, state, preview_z)
            if evaluate:
                check_weights(state)
                score(evaluator, state, config, logger)
            if audited or evaluate:  # neither is part of a step's time
                logged_at, logged_step = time.perf_counter(), state.step
            if save:
                logger.sync()
                path = save_checkpoint(run_dir, state, config)
                on_rank_zero(record.save, state.step)
                if asked:
                    stop.save = 0
                    logger.say(f"SIGUSR1     saved {path}")
            if stopped:
                break
    (stopped,) = agree(stop.stop)
    if stopped:
        where = f"stopped after step {state.step:,} and saved {path}. Go on with: --resume {run_dir}"
        raise Stopped(f"{signal.Signals(stopped).name}: {where}", stopped)
    return path


def main():
    flags, dry_run = parse_args(__doc__)
    with processes():
        config = prepare(flags, dry_run)
        path = train(config)
        if rank() == 0:
            print(f"\ndone. Score it: python evaluate.py {config.run_dir}   (last checkpoint: {path})")


if __name__ == "__main__":
    run_as_script(main)
