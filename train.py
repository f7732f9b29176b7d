"""Train a GAN: the updates of D and G, and the loop around them (Miyato et al. 2018, section 4; losses: losses/)."""

import utils  # noqa: F401, must be first: it reports missing packages

# isort: split
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets import Images, to_float
from evaluation.evaluator import Evaluator
from losses import accuracy
from models.normalization import iteration
from settings.command_line import parse_args
from settings.config import Config
from training import augmenting, monitor, prepare
from training.objective import Batch, Objective
from training.run import Run
from training.schedule import ema_decay, set_moving
from training.session import begin, opened, roll_back
from training.state import State
from utils.console import command
from utils.distributed import average, gradients_stay_local, processes, rank
from utils.errors import Diverged, run_as_script
from utils.precision import FULL, Precision

# ---- One update each -----------------------------------------------------------------------------------------------


def discriminator_step(
    G: nn.Module, D: nn.Module, opt_D: Optimizer, batch: Batch, objective: Objective, precision: Precision = FULL
) -> tuple[Tensor, Tensor, Tensor]:
    """Update D once, on batch.real (N, C, H, W) and as many new samples G(batch.z). Each has its label, if any.

    precision: of the networks only; losses and penalties are computed in full precision. Returns detached (loss,
    real_logits (N, 1), fake_logits (N, 1)). The loss, a scalar, includes the penalties and the class loss of acgan.
    """
    with torch.no_grad():
        batch = batch._replace(fake=precision.call(G, batch.z, batch.labels))
    opt_D.zero_grad()
    found = []  # (loss, real logits, fake logits) of each part
    for i, part in enumerate(batch.chunk(objective.accumulate)):  # gradient accumulation: one backward for each part
        with in_part(i, objective.accumulate, D, called=[D]):
            real, fake = objective.judge(D, part.views("real", "fake"), precision)  # logits, and class loss if any
            loss = objective.d_loss(real.logits, fake.logits) + objective.acgan_weight_D * real.class_loss
            loss = loss + objective.penalty(D, part, real.logits, fake.logits, exact=precision.dtype is None)
            precision.backward(loss / objective.accumulate)
        found.append((loss.detach().view(1), real.logits.detach(), fake.logits.detach()))
    precision.update(opt_D)
    objective.project(D)  # such as weight clipping
    losses, real_logits, fake_logits = (torch.cat(parts) for parts in zip(*found))
    return losses.mean(), real_logits, fake_logits


def generator_step(
    G: nn.Module, D: nn.Module, opt_G: Optimizer, batch: Batch, objective: Objective, precision: Precision = FULL
) -> Tensor:
    """Update G once, on samples G(batch.z), z (N, z_dim). A loss that compares them with real images has batch.real.

    D's parameters are frozen meanwhile. Returns the detached loss, a scalar.
    """
    D.requires_grad_(False)
    opt_G.zero_grad()
    losses = []
    for i, part in enumerate(batch.chunk(objective.accumulate)):
        with in_part(i, objective.accumulate, G, called=[G, D]):
            part = part._replace(fake=precision.call(G, part.z, part.labels))
            fake, *real = objective.judge(D, part.views("fake", "real"), precision)
            loss = objective.g_loss(fake.logits, *(verdict.logits for verdict in real))
            loss = loss + objective.acgan_weight_G * fake.class_loss
            precision.backward(loss / objective.accumulate)
        losses.append(loss.detach())
    precision.update(opt_G)
    D.requires_grad_(True)
    return torch.stack(losses).mean()


def in_part(number: int, count: int, updated: nn.Module, called: Sequence[nn.Module]) -> contextlib.ExitStack:
    """Return a context for the forwards and the backward of one of `count` parts of a batch.

    updated: the network to train; ranks average its gradients in the last part only. called: the networks that run;
    their u and v of spectral normalization advance in the first part only.
    """
    contexts = contextlib.ExitStack()
    if count > 1:
        for network in called:
            contexts.enter_context(iteration(network, number == 0))
        if number < count - 1:
            contexts.enter_context(gradients_stay_local(updated))
    return contexts


def next_real(state: State, config: Config) -> tuple[Tensor, Tensor | None]:
    """Return the next real images (N, C, H, W) in [-1, 1], and their labels (N,) or None."""
    images, labels = state.batches.next()
    return to_float(images, state.random, config.mirror), labels


def step(state: State, config: Config) -> None:
    """Update D n_dis times, each on new images and samples, then G and its moving average."""
    G, D = state.parallel["G"], state.parallel["D"]
    source: dict[str, Any] = {"generator": state.random, "device": state.device}
    set_moving(state, config)  # learning rates and whatever else has a schedule
    averages, paired = state.objective.averages, state.objective.paired  # paired: fake and real of one class
    if averages:
        averages.begin(state.step)
    # Every rank draws the whole batch's random numbers, so that a run is the same on any number of ranks.
    for i in range(config.n_dis):
        objective = state.objective.at(state.step * config.n_dis + i)
        real, real_labels = next_real(state, config)
        z = torch.randn(len(real), config.z_dim, **source)
        alpha = torch.rand(len(real), 1, 1, 1, **source)  # for the gradient penalty, between real and fake
        labels = real_labels if paired else state.batches.draw_labels(len(real), state.random)
        batch = Batch(z, real, alpha, labels=labels, real_labels=real_labels)
        batch = batch._replace(drawn=augmenting.draw(state, len(z)), real_drawn=augmenting.draw(state, len(real)))
        if any(found.near for found, _ in objective.regularizers):
            batch = batch._replace(noise=torch.randn(real.shape, **source))
        loss_D, real_logits, fake_logits = discriminator_step(
            G, D, state.opt_D, batch.local(), objective, state.precision["D"]
        )
        augmenting.adapt(state, config, real_logits, fake_logits)
        means = average(torch.stack([real_logits.mean(), fake_logits.mean()]))  # over all ranks
        if averages:
            averages.update(means)
    z = torch.randn(config.batch_size_G or config.batch_size, config.z_dim, **source)
    batch = Batch(z, labels=None if paired else state.batches.draw_labels(len(z), state.random))
    batch = batch._replace(drawn=augmenting.draw(state, len(z)))
    if paired:
        real, labels = next_real(state, config)
        real_drawn = augmenting.draw(state, len(real))
        batch = batch._replace(real=real, labels=labels, real_labels=labels, real_drawn=real_drawn)
    # state.D without DistributedDataParallel: its gradients are not needed here.
    loss_G = generator_step(G, state.D, state.opt_G, batch.local(), state.objective, state.precision["G"])
    state.step += 1
    if state.ema:
        state.ema.update(state.G, ema_decay(config, state.step))
    accuracy_D = accuracy(config.loss, real_logits, fake_logits, means)
    state.pending.append(torch.stack([loss_D, loss_G, *means, accuracy_D]))


# ---- The run -------------------------------------------------------------------------------------------------------


def train(config: Config, evaluator: Evaluator | None = None, images: Images | None = None) -> Path:
    """Train to config.total_steps, from step 0 or from config.resume. Returns the path of the last checkpoint.

    Pass evaluator and images if you have them already. Raises UserError before the first step if anything is
    missing, Diverged if a loss or weight is not finite, Stopped if a signal ends the run, after saving.
    """
    with opened(config, evaluator, images) as run:
        while True:
            try:
                return loop(run)
            except Diverged as error:
                roll_back(run, error)  # if --on_nan rollback asks for it; otherwise it raises the error


def loop(run: Run) -> Path:
    """Step to total_steps, and log, draw, score and save in between. Returns the path of the last checkpoint."""
    config, state = run.config, run.state
    begin(run)
    with run.progress() as bar:
        while state.step < config.total_steps:
            with run.explaining_memory():
                step(state, config)
            bar.update()

            # Everything below is rare. A signal that arrives meanwhile is answered after the next step.
            due = run.due()
            if not due:
                continue

            monitor.check_finite(state)
            if "log" in due:
                line = monitor.log(run)
                bar.set_postfix_str(f"loss_D {line['loss_D']:.3f} loss_G {line['loss_G']:.3f}", refresh=False)
            if "sample" in due:
                monitor.sample(run)
            if "audit" in due:
                monitor.audit(run)
            if "score" in due:
                monitor.score(run)
            if "save" in due:
                run.save()
            if "stop" in due:
                break
    return run.end()


def main() -> None:
    flags, dry_run = parse_args(__doc__)
    with processes():
        config = prepare(flags, dry_run)
        path = train(config)
        if rank() == 0:
            print(f"\ndone. Score it: {command('python', 'evaluate.py', config.run_dir)}   (last checkpoint: {path})")


if __name__ == "__main__":
    run_as_script(main)
