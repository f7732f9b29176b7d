"""Train a GAN: the mathematics of the two updates, and the loop around them (Miyato et al. 2018, section 4)."""

import contextlib
import dataclasses
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from losses import LOSSES, REGULARIZERS
from utils import checkpoint, data, plots
from utils.config import FIELDS, Config, default_run_dir, parse_args, resolve, stored, to_yaml, warnings
from utils.distributed import select_device
from utils.ema import EMA
from utils.errors import Diverged, Stopped, UserError, run_as_script
from utils.logger import Logger, read_stats
from utils.metrics import Evaluator, summary

PREVIEW = 100  # samples in a grid
PREVIEW_SEED = 20180216  # of the fixed z: the same for every run, so that runs compare
DISK_RESERVE = 100 * 2**20  # bytes beside the checkpoints: pictures and logs


# ---- One update each -----------------------------------------------------------------------------------------------


def discriminator_step(
    G, D, d_loss, opt_D, real, z, regularizer=REGULARIZERS["none"], weight=0.0, alpha=None, joint=True
):
    """One update of D on real images (N, C, H, W) and as many fresh samples G(z), z (N, z_dim).

    alpha (N, 1, 1, 1) in [0, 1]: where the gradient penalty looks, between real and fake. joint: one forward of D for
    both halves, so one power iteration an update as in the paper's algorithm 1; batch norm in D needs two, one a half.
    Returns detached (loss, real_logits, fake_logits); the loss includes the penalty.
    """
    with torch.no_grad():
        fake = G(z)
    if joint:
        real_logits, fake_logits = D(torch.cat([real, fake])).split(len(real))
    else:
        real_logits, fake_logits = D(real), D(fake)
    loss = d_loss(real_logits, fake_logits)
    if regularizer.penalty:
        loss = loss + weight * regularizer.penalty(D, real, fake, alpha)
    opt_D.zero_grad()
    loss.backward()
    opt_D.step()
    if regularizer.project:
        regularizer.project(D, weight)
    return loss.detach(), real_logits.detach(), fake_logits.detach()


def generator_step(G, D, g_loss, opt_G, z):
    """One update of G on samples G(z), z (N, z_dim). D's parameters are frozen meanwhile. Returns the detached loss."""
    D.requires_grad_(False)
    loss = g_loss(D(G(z)))
    opt_G.zero_grad()
    loss.backward()
    opt_G.step()
    D.requires_grad_(True)
    return loss.detach()


# ---- The state of a run --------------------------------------------------------------------------------------------


class State:
    """All that changes while a run trains, and so all that a checkpoint holds beside the configuration."""

    def __init__(self, config, images, device):
        torch.manual_seed(config.seed)
        G, D = checkpoint.models_of(config)
        self.G, self.D = G.to(device), D.to(device)
        self.opt_G = make_optimizer(config, self.G, config.lr_G)
        self.opt_D = make_optimizer(config, self.D, config.lr_D)
        self.ema = EMA(self.G, config.ema_decay) if config.ema_decay else None
        self.batches = data.Batches(images.to(device), config.batch_size, config.seed)
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
            "random": self.random.get_state(),
            "data": self.batches.state_dict(),
            "pending": torch.stack(self.pending) if self.pending else None,
        }

    def load_state_dict(self, content, path):
        checkpoint.load_weights(self.G, content["G"], path, "G")
        checkpoint.load_weights(self.D, content["D"], path, "D")
        if self.ema:
            checkpoint.load_weights(self.ema.G, content["ema"], path, "EMA")
        checkpoint.load_weights(self.opt_G, content["opt_G"], path, "optimizer of G")
        checkpoint.load_weights(self.opt_D, content["opt_D"], path, "optimizer of D")
        self.random.set_state(content["random"])
        self.batches.load_state_dict(content["data"])
        self.step = content["step"]
        pending = content["pending"]
        self.pending = [] if pending is None else list(pending.to(self.batches.images.device))


def make_optimizer(config, network, lr):
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr)
    return torch.optim.Adam(network.parameters(), lr, betas=config.betas)


def set_learning_rates(state, config):
    """The learning rates of the coming step: constant, or falling linearly from step 0 to 0 at the end."""
    factor = 1 - state.step / config.total_steps if config.lr_decay == "linear" else 1.0
    for optimizer, lr in ((state.opt_G, config.lr_G), (state.opt_D, config.lr_D)):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor


# ---- Around the loop -----------------------------------------------------------------------------------------------


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


class Start(NamedTuple):
    """Where a run starts: its configuration, directory, the checkpoint to go on from, and the preset that was taken."""

    config: Config
    run_dir: Path
    content: dict | None = None
    path: Path | None = None
    preset: Path | None = None


def prepare(flags, dry_run=False):
    """From the typed flags to the Start of a new run, or of one that --resume names. UserError for what cannot be.

    dry_run: print the settings and exit instead.
    """
    start = resumed(flags) if "resume" in flags else new(flags)
    if dry_run:
        print(f"# preset: {start.preset or 'none'}\n# run_dir: {start.run_dir}\n{to_yaml(start.config)}", end="")
        raise SystemExit
    run_dir = start.run_dir
    if start.content is None and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(
            f"{run_dir} exists, and a run never overwrites another. Go on with --resume {run_dir}, or choose "
            "another --run_dir or --seed, or delete it"
        )
    return start


def new(flags):
    config, preset = resolve(flags)
    return Start(config, Path(config.run_dir or default_run_dir(config)), preset=preset)


def resumed(flags):
    run_dir = Path(flags["resume"])
    if not run_dir.is_dir():
        raise UserError(f"--resume takes a run directory, and {run_dir} is none")
    path = checkpoint.latest(run_dir)
    content = checkpoint.load(path)
    return Start(changed(checkpoint.config_of(content, path), flags, run_dir), run_dir, content, path)


def changed(config, flags, run_dir):
    """A resumed run's configuration with the flags that may change; UserError for those that may not."""
    for name in ("run_dir", "config"):
        if name in flags:
            raise UserError(f"--{name} has no place beside --resume: {run_dir} has its own")
    new = {name: value for name, value in flags.items() if name != "resume" and value != getattr(config, name)}
    for name, value in new.items():
        if not FIELDS[name].metadata["resumable"]:
            raise UserError(
                f"--{name} {value} cannot change in a run that is resumed: {run_dir} has {getattr(config, name)}. "
                "Start a new run for it"
            )
    return dataclasses.replace(config, **new)


def check_disk(run_dir, state, keep):
    """Raise UserError where the checkpoints that will be kept would not fit on the disk."""
    networks = [state.G, state.D] + ([state.ema.G] if state.ema else [])
    values = sum(tensor.numel() * tensor.element_size() for net in networks for tensor in net.state_dict().values())
    adam = 2 * sum(p.numel() * p.element_size() for net in (state.G, state.D) for p in net.parameters())
    needed, free = (values + adam) * (keep + 1) + DISK_RESERVE, shutil.disk_usage(run_dir).free
    if needed > free:
        raise UserError(
            f"{run_dir} may need {needed / 2**20:,.0f} MiB for its checkpoints and pictures, and "
            f"{free / 2**20:,.0f} MiB are free there; choose another --run_dir or a smaller --keep"
        )


def total_norm(network):
    """The norm of all gradients that the last backward left in a network's parameters."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def log_line(state, seconds_per_step):
    """The statistics since the last line. Raises Diverged, with the step, where one of them is not finite."""
    history = torch.stack(state.pending).double().cpu()  # (steps, 4)
    first = state.step - len(history) + 1
    if (broken := ~history.isfinite().all(dim=1)).any():
        at = broken.nonzero()[0].item()
        loss = "loss_D" if not history[at, [0, 2, 3]].isfinite().all() else "loss_G"
        raise Diverged(f"{loss} is not finite at step {first + at} (loss_D {history[at, 0]}, loss_G {history[at, 1]})")
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


def save_checkpoint(run_dir, state, config):
    """Save the run's whole state and thin the older checkpoints; Diverged instead where a weight is not finite."""
    for name, network in (("G", state.G), ("D", state.D)):
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            raise Diverged(f"a weight of {name} is not finite at step {state.step}")
    path = checkpoint.checkpoint_path(run_dir, state.step)
    checkpoint.save(path, {"format": checkpoint.FORMAT, "config": stored(config), **state.state_dict()})
    checkpoint.thin(run_dir, config.keep)
    return path


# ---- The run -------------------------------------------------------------------------------------------------------


def train(start, evaluator=None, images=None):
    """Train from a Start (see prepare()) to its total_steps. Returns the last checkpoint's path.

    evaluator and images: where the caller has made them already. Raises UserError before the first step for anything
    that is missing, Diverged for a loss or weight that is not finite, Stopped after SIGINT or SIGTERM, all saved.
    """
    config, run_dir = start.config, start.run_dir
    device = select_device(config.device)
    images = images or data.load_split(config)
    if config.num_epochs is not None:
        steps = data.steps_of(config.num_epochs, len(images.images), config.batch_size, config.n_dis)
        config = dataclasses.replace(config, total_steps=steps, num_epochs=None)
    state = State(config, images.images, device)
    if start.content:
        state.load_state_dict(start.content, start.path)
    if evaluator is None and config.eval_every:
        evaluator = Evaluator(config, images, device)

    # From here on the run exists: its directory, configuration and log.
    try:
        for name in ("samples", "checkpoints", "plots"):
            (run_dir / name).mkdir(parents=True, exist_ok=True)
        check_disk(run_dir, state, config.keep)
        checkpoint.write_atomically(run_dir / "config.yaml", lambda path: path.write_text(to_yaml(config)))
        logger = Logger(run_dir, config.tensorboard, state.step)
    except OSError as error:
        raise UserError(f"cannot write into {run_dir}: {error.strerror}") from error
    with contextlib.closing(logger), StopSignal() as stop:
        announce(logger, start, config, state, images, device)
        try:
            return loop(config, run_dir, state, evaluator, logger, stop)
        except Diverged as error:
            found = checkpoint.checkpoints(run_dir)
            last = f"the last good checkpoint is {found[-1][1]}" if found else "no checkpoint had been saved"
            raise Diverged(f"{error}; {last}. A smaller learning rate or another normalization may help") from error
        finally:
            finish_pictures(run_dir, config)


def loop(config, run_dir, state, evaluator, logger, stop):
    """The updates from state.step to config.total_steps, with what is logged, drawn, saved and scored between them."""
    d_loss, g_loss = LOSSES[config.loss]
    regularizer = REGULARIZERS[config.regularizer]
    weight = config.regularizer_weight or regularizer.default_weight
    joint = "batch" not in config.d_norm
    batch_size_G = config.batch_size_G or config.batch_size
    G, D, random, device = state.G.train(), state.D.train(), state.random, state.batches.images.device
    preview_generator = torch.Generator().manual_seed(PREVIEW_SEED)
    preview_z = torch.randn(PREVIEW, config.z_dim, generator=preview_generator).to(device)

    def draw_z(count):
        return torch.randn(count, config.z_dim, generator=random, device=device)

    path = checkpoint.checkpoint_path(run_dir, state.step)
    if state.step == 0:
        save_samples(run_dir, state, preview_z)
        save_checkpoint(run_dir, state, config)
    logged_at, logged_step = time.perf_counter(), state.step
    bar = tqdm(total=config.total_steps, initial=state.step, unit="step", smoothing=0.05, dynamic_ncols=True)
    with bar:
        while state.step < config.total_steps:
            # n_dis updates of D, each on a fresh real batch and fresh samples, then one of G.
            set_learning_rates(state, config)
            for _ in range(config.n_dis):
                real = data.to_float(state.batches.next(), random)
                alpha = torch.rand(len(real), 1, 1, 1, generator=random, device=device)
                loss_D, real_logits, fake_logits = discriminator_step(
                    G, D, d_loss, state.opt_D, real, draw_z(len(real)), regularizer, weight, alpha, joint
                )
            loss_G = generator_step(G, D, g_loss, state.opt_G, draw_z(batch_size_G))
            state.step += 1
            if state.ema:
                state.ema.update(G, state.step)
            state.pending.append(torch.stack([loss_D, loss_G, real_logits.mean(), fake_logits.mean()]))
            bar.update()

            # Everything below is rare.
            step, last = state.step, state.step == config.total_steps
            due = {
                "log": step % config.log_every == 0,
                "sample": step % config.sample_every == 0 or last,
                "evaluate": evaluator is not None and config.eval_every and step % config.eval_every == 0,
                "save": step % config.save_every == 0 or last or stop.received is not None,
            }
            if not any(due.values()):
                continue

            if due["log"]:
                now = time.perf_counter()
                line = log_line(state, (now - logged_at) / (step - logged_step))
                logged_at, logged_step = now, step
                logger.write(step, line)
                bar.set_postfix_str(f"loss_D {line['loss_D']:.3f} loss_G {line['loss_G']:.3f}", refresh=False)
            if due["sample"]:
                save_samples(run_dir, state, preview_z)
            if due["evaluate"]:
                was_training = state.scored.training
                result, _ = evaluator.evaluate(state.scored, step, ema=state.ema is not None)
                state.scored.train(was_training)
                logger.say(f"step {step:,}: {summary(result)}")
                logger.write(step, flat_scores(result))
                logged_at, logged_step = time.perf_counter(), step
            if due["save"]:
                path = save_checkpoint(run_dir, state, config)
            if stop.received and not last:
                name = signal.Signals(stop.received).name
                message = f"{name}: stopped after step {step:,} and saved {path}. Go on with: --resume {run_dir}"
                raise Stopped(message, stop.received)
    return path


def flat_scores(result):
    """The scores of an evaluation as a line of stats.jsonl."""
    return {
        "inception_score": result["inception_score"]["mean"],
        "fid": result["fid"],
        "kid": result["kid"]["mean"],
        "precision": result["precision"],
        "recall": result["recall"],
    }


def announce(logger, start, config, state, images, device):
    """Say what is about to be trained."""
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", state.G), ("D", state.D))}
    if start.preset:
        logger.say(f"preset      {start.preset.parent.name}/{start.preset.name}")
    if start.content:
        logger.say(f"resumed     {start.path}")
    n, channels, side, _ = images.images.shape
    logger.say(f"data        {config.dataset}: {n:,} images of {side}x{side}, {'grey' if channels == 1 else 'colour'}")
    logger.say(
        f"networks    {config.model}: G {count['G']:,} parameters, D {count['D']:,} ({' + '.join(config.d_norm)} norm)"
    )
    extra = f" + {config.regularizer}" if config.regularizer != "none" else ""
    logger.say(f"training    {config.loss}{extra}, {config.total_steps:,} steps of n_dis {config.n_dis} on {device}")
    logger.say(f"run         {start.run_dir}")
    for sentence in warnings(config):
        logger.say(f"warning     {sentence}")


def finish_pictures(run_dir, config):
    """The curves and the animation of what was trained so far."""
    stats = read_stats(run_dir)
    if stats:
        plots.plot_curves(
            run_dir, stats, f"{config.dataset}, {config.model}, {config.loss}, D: {' + '.join(config.d_norm)}"
        )
    plots.animate(run_dir)


def main():
    flags, dry_run = parse_args(__doc__)
    start = prepare(flags, dry_run)
    path = train(start)
    print(f"\ndone. Score it: python evaluate.py {start.run_dir}   (last checkpoint: {path})")


if __name__ == "__main__":
    run_as_script(main)
