"""Train a GAN: the mathematics of the two updates, and the loop around them (Miyato et al. 2018, section 4)."""

import contextlib
import dataclasses
import signal
import time
from pathlib import Path

import torch

from losses import LOSSES, REGULARIZERS
from utils import checkpoint, data, plots, report
from utils.config import default_run_dir, to_yaml, warnings
from utils.distributed import select_device
from utils.errors import Diverged, Stopped, UserError, run_as_script
from utils.evaluator import Evaluator
from utils.logger import Logger, check_tensorboard, progress, read_stats
from utils.parser import parse_args
from utils.precision import FULL, keep_memory, set_tf32
from utils.run import State, StopSignal, check_disk, prepare, refuse_existing, save_checkpoint
from utils.sampling import Generated

PREVIEW = 100  # samples in a grid
PREVIEW_SEED = 20180216  # of the fixed z: the same for every run, so that runs compare


# ---- One update each -----------------------------------------------------------------------------------------------


def discriminator_step(
    G, D, d_loss, opt_D, real, z, regularizer=REGULARIZERS["none"], weight=0.0, alpha=None, joint=True, precision=FULL
):
    """One update of D on real images (N, C, H, W) and as many fresh samples G(z), z (N, z_dim).

    alpha (N, 1, 1, 1) in [0, 1]: where the gradient penalty looks, between real and fake. joint: one forward of D for
    both halves, so one power iteration an update as in the paper's algorithm 1; batch norm in D needs two, one a half.
    precision: of the networks; losses and penalties are computed in full precision.
    Returns detached (loss, real_logits, fake_logits); the loss includes the penalty.
    """
    with torch.no_grad():
        fake = precision.call(G, z)
    if joint:
        real_logits, fake_logits = precision.call(D, torch.cat([real, fake])).split(len(real))
    else:
        real_logits, fake_logits = precision.call(D, real), precision.call(D, fake)
    loss = d_loss(real_logits, fake_logits)
    if regularizer.penalty:
        loss = loss + weight * regularizer.penalty(D, real, fake, alpha)
    precision.update(opt_D, loss)
    if regularizer.project:
        regularizer.project(D, weight)
    return loss.detach(), real_logits.detach(), fake_logits.detach()


def generator_step(G, D, g_loss, opt_G, z, precision=FULL):
    """One update of G on samples G(z), z (N, z_dim). D's parameters are frozen meanwhile. Returns the detached loss."""
    D.requires_grad_(False)
    loss = g_loss(precision.call(D, precision.call(G, z)))
    precision.update(opt_G, loss)
    D.requires_grad_(True)
    return loss.detach()


def step(state, config):
    """n_dis updates of D, each on a fresh real batch and fresh samples, then one of G and of its moving average."""
    d_loss, g_loss = LOSSES[config.loss]
    regularizer = REGULARIZERS[config.regularizer]
    weight = config.regularizer_weight or regularizer.default_weight
    joint = "batch" not in config.d_norm
    random, device = state.random, state.batches.images.device
    set_learning_rates(state, config)
    for _ in range(config.n_dis):
        real = data.to_float(state.batches.next(), random)
        z = torch.randn(len(real), config.z_dim, generator=random, device=device)
        alpha = torch.rand(len(real), 1, 1, 1, generator=random, device=device)
        loss_D, real_logits, fake_logits = discriminator_step(
            state.G, state.D, d_loss, state.opt_D, real, z, regularizer, weight, alpha, joint, state.precision["D"]
        )
    z = torch.randn(config.batch_size_G or config.batch_size, config.z_dim, generator=random, device=device)
    loss_G = generator_step(state.G, state.D, g_loss, state.opt_G, z, state.precision["G"])
    state.step += 1
    if state.ema:
        state.ema.update(state.G, state.step)
    state.pending.append(torch.stack([loss_D, loss_G, real_logits.mean(), fake_logits.mean()]))


def set_learning_rates(state, config):
    """The learning rates of the coming step: constant, or falling linearly from step 0 to 0 at the end."""
    factor = 1 - state.step / config.total_steps if config.lr_decay == "linear" else 1.0
    for optimizer, lr in ((state.opt_G, config.lr_G), (state.opt_D, config.lr_D)):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor


# ---- What a run writes ---------------------------------------------------------------------------------------------


def total_norm(network):
    """The norm of all gradients that the last backward left in a network's parameters."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def check_finite(state):
    """The losses and logits since the last line of the log, (steps, 4); Diverged, with the step, where not finite."""
    history = torch.stack(state.pending).double().cpu()
    first = state.step - len(history) + 1
    if (broken := ~history.isfinite().all(dim=1)).any():
        at = broken.nonzero()[0].item()
        loss = "loss_D" if not history[at, [0, 2, 3]].isfinite().all() else "loss_G"
        raise Diverged(f"{loss} is not finite at step {first + at} (loss_D {history[at, 0]}, loss_G {history[at, 1]})")
    return history


def log_line(state, seconds_per_step):
    """The statistics since the last line."""
    history = check_finite(state)
    means = dict(zip(("loss_D", "loss_G", "real_logits", "fake_logits"), history.mean(dim=0).tolist()))
    state.pending = []
    return means | {
        "grad_norm_D": total_norm(state.D).item(),
        "grad_norm_G": total_norm(state.G).item(),
        "lr_G": state.opt_G.param_groups[0]["lr"],
        "lr_D": state.opt_D.param_groups[0]["lr"],
        "seconds_per_step": seconds_per_step,
    }


def save_samples(run_dir, state, z):
    """Draw the grid of the fixed z in eval mode and save it under the step's name."""
    G = state.scored
    was_training = G.training
    with torch.inference_mode():
        images = data.quantise(G.eval()(z)).cpu()
    G.train(was_training)
    plots.grid(images).save(run_dir / "samples" / f"step_{state.step:06d}.png")


def score(evaluator, state, config, logger):
    """Score the generator as it is now under the first protocol, into the log and stats.jsonl."""
    source = Generated(state.scored, config.z_dim, config.seed, evaluator.device)
    facts = {"step": state.step, "ema": state.ema is not None, "seed": config.seed}
    results, _ = evaluator.evaluate(source, facts, config.protocol[:1], config.num_samples, quick=True)
    logger.say(f"step {state.step:,}: {report.summary(results)}")
    logger.write(state.step, flat_scores(results[0]))


def flat_scores(result):
    """The scores of an evaluation as a line of stats.jsonl."""
    return {
        "inception_score": result["inception_score"]["mean"],
        "fid": result["fid"],
        "kid": result["kid"]["mean"],
        "protocol": report.label(result["protocol"]),
    }


def announce(logger, run_dir, config, state, images, device):
    """Say what is about to be trained."""
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", state.G), ("D", state.D))}
    if state.step:
        left = "" if state.step < config.total_steps else ": nothing is left to train"
        logger.say(f"resumed     at step {state.step:,}{left}")
    n, channels, side, _ = images.images.shape
    norm, extra = " + ".join(config.d_norm), f" + {config.regularizer}" if config.regularizer != "none" else ""
    logger.say(f"data        {config.dataset}: {n:,} images of {side}x{side}, {'grey' if channels == 1 else 'colour'}")
    logger.say(f"networks    {config.model}: G {count['G']:,} parameters, D {count['D']:,} with d_norm {norm}")
    logger.say(f"training    {config.loss}{extra}, {config.total_steps:,} steps of n_dis {config.n_dis} on {device}")
    logger.say(f"run         {run_dir}")
    ignored = [f"--{name}" for name in ("amp", "tf32", "compile") if getattr(config, name) not in (False, "none")]
    if ignored and device.type != "cuda":
        logger.say(f"warning     without effect on {device}: {' and '.join(ignored)} speed up CUDA alone")
    for sentence in warnings(config):
        logger.say(f"warning     {sentence}")


def finish_pictures(run_dir, config, logger):
    """The curves and the animation of what was trained so far. A picture that fails must not hide how the run ended."""
    title = f"{config.dataset}, {config.model}, {config.loss}, D: {' + '.join(config.d_norm)}"
    try:
        plots.plot_curves(run_dir, read_stats(run_dir), title)
        plots.animate(run_dir)
    except (OSError, ValueError) as error:
        logger.say(f"warning     the pictures in {run_dir / 'plots'} could not be made: {error}")


# ---- The run -------------------------------------------------------------------------------------------------------


def train(config, evaluator=None, images=None):
    """Train to config.total_steps, from step 0 or from config.resume's last checkpoint. Returns the last one's path.

    evaluator and images: where the caller has made them already. Raises UserError before the first step for anything
    that is missing, Diverged for a loss or weight that is not finite, Stopped after SIGINT or SIGTERM, all saved.
    """
    run_dir = Path(config.resume or config.run_dir or default_run_dir(config))
    if not config.resume:
        refuse_existing(run_dir)
    device = select_device(config.device)
    if device.type == "cuda":
        set_tf32(config.tf32)
    else:
        keep_memory()
    images = images or data.load_split(config)
    if config.num_epochs is not None:
        steps = data.steps_of(config.num_epochs, len(images.images), config.batch_size, config.n_dis)
        config = dataclasses.replace(config, total_steps=steps, num_epochs=None)
    state = State(config, images, device)
    if config.compile and device.type == "cuda":
        state.G.compile()
        state.D.compile()
    if config.resume:
        state.load_state_dict(*checkpoint.load_latest(run_dir))
        if state.step > config.total_steps:
            raise UserError(f"{run_dir} is at step {state.step:,} already, beyond --total_steps {config.total_steps:,}")
    check_disk(run_dir, state, config.keep)
    if config.tensorboard:
        check_tensorboard()
    if evaluator is None and config.eval_every:
        evaluator = Evaluator(config, images, device)
        evaluator.check(config.protocol[:1])

    # From here on the run exists: its directory, configuration and log.
    try:
        for name in ("samples", "checkpoints", "plots"):
            (run_dir / name).mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(run_dir / "config.yaml", lambda path: path.write_text(to_yaml(config)))
        logger = Logger(run_dir, config.tensorboard, state.step)
    except OSError as error:
        raise UserError(f"cannot write into {run_dir}: {error.strerror}") from error
    with contextlib.closing(logger), StopSignal() as stop:
        announce(logger, run_dir, config, state, images, device)
        try:
            return loop(config, run_dir, state, evaluator, logger, stop)
        except Diverged as error:
            found = checkpoint.checkpoints(run_dir)
            last = f"the last good checkpoint is {found[-1][1]}" if found else "no checkpoint had been saved"
            raise Diverged(f"{error}; {last}. A smaller learning rate or another normalization may help") from error
        except OSError as error:
            raise UserError(f"cannot write into {run_dir}: {error}; --resume {run_dir} goes on when it can") from error
        finally:
            finish_pictures(run_dir, config, logger)


def loop(config, run_dir, state, evaluator, logger, stop):
    """The steps from state.step to config.total_steps, and what is logged, drawn, scored and saved between them."""
    z_generator = torch.Generator().manual_seed(PREVIEW_SEED)
    preview_z = torch.randn(PREVIEW, config.z_dim, generator=z_generator).to(state.batches.images.device)
    state.G.train()
    state.D.train()
    path = checkpoint.checkpoint_path(run_dir, state.step)
    if state.step == 0:
        save_samples(run_dir, state, preview_z)
        save_checkpoint(run_dir, state, config)
    logged_at, logged_step = time.perf_counter(), state.step
    with progress(total=config.total_steps, initial=state.step, unit="step", smoothing=0.05, delay=0) as bar:
        while state.step < config.total_steps:
            step(state, config)
            bar.update()

            # Everything below is rare. A signal that comes during it is answered after the next step.
            received, last = stop.received, state.step == config.total_steps
            log = state.step % config.log_every == 0 or last
            sample = state.step % config.sample_every == 0 or last
            evaluate = evaluator is not None and config.eval_every and state.step % config.eval_every == 0
            save = state.step % config.save_every == 0 or last or received
            if not (log or sample or evaluate or save):
                continue

            if log:
                now = time.perf_counter()
                line = log_line(state, (now - logged_at) / (state.step - logged_step))
                logger.write(state.step, line)
                bar.set_postfix_str(f"loss_D {line['loss_D']:.3f} loss_G {line['loss_G']:.3f}", refresh=False)
                logged_at, logged_step = now, state.step
            if sample:
                save_samples(run_dir, state, preview_z)
            if evaluate:
                score(evaluator, state, config, logger)
                logged_at, logged_step = time.perf_counter(), state.step  # scoring is no part of a step's time
            if save:
                if state.pending:
                    check_finite(state)
                path = save_checkpoint(run_dir, state, config)
            if received:
                break
    if stop.received:
        name = signal.Signals(stop.received).name
        where = f"stopped after step {state.step:,} and saved {path}. Go on with: --resume {run_dir}"
        raise Stopped(f"{name}: {where}", stop.received)
    return path


def main():
    config = prepare(*parse_args(__doc__))
    path = train(config)
    print(f"\ndone. Score it: python evaluate.py {config.run_dir}   (last checkpoint: {path})")


if __name__ == "__main__":
    run_as_script(main)
