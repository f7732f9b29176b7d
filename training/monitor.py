"""Logging, sampling, scoring and audits during training. Under torchrun only rank 0 writes."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from datasets import Classes, Images, quantise, spaced
from evaluation.discriminator import lipschitz
from evaluation.evaluator import Wanted
from evaluation.inputs.features import is_labelled
from evaluation.inputs.sampling import Generated
from evaluation.protocol import of_run
from evaluation.results import report
from evaluation.scores.registry import OWN
from models.conditional import given
from settings.config import Config
from settings.layers import usual_steps
from settings.rules import warnings
from utils.distributed import rank, world_size
from utils.errors import Diverged, Stopped
from utils.files import write_text
from utils.plots import grid
from utils.precision import bf16_gain

from .reporting.logger import BROKEN
from .run import PREVIEW, Run
from .schedule import images_seen, moving
from .state import STATISTICS, State, check_weights, disk_use

SHOWN = 20  # classes in the line of their counts
ROWS = COLUMNS = 10  # of a conditional run's grid: classes at most, and samples of each
WORTH_SAYING = 1.2  # times as fast
PROBED = 64  # real images, and samples, at which each line of the log measures D's gradient


def total_norm(network: nn.Module) -> Tensor:
    """The norm over all parameters of the gradients from the last backward pass."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def check_finite(state: State) -> Tensor:
    """Return the STATISTICS (steps, 5) since the last line of the log. Raises Diverged if one is not finite."""
    history = state.history().cpu().double()  # (0, 5) if there were no steps since
    first = state.step - len(history) + 1
    if (broken := ~history.isfinite().all(dim=1)).any():
        at = int(broken.nonzero()[0])
        loss = "loss_D" if not history[at, [0, 2, 3]].isfinite().all() else "loss_G"
        raise Diverged(f"{loss} is not finite at step {first + at} (loss_D {history[at, 0]}, loss_G {history[at, 1]})")
    return history


def log(run: Run) -> dict[str, float]:
    """Write the statistics since the last line to stats.jsonl and return them."""
    state, config, seconds = run.state, run.config, run.seconds_per_step()
    means = dict(zip(STATISTICS, check_finite(state).mean(dim=0).tolist()))
    state.averaged = []
    line = means | {
        "grad_norm_D": total_norm(state.D).item(),
        "grad_norm_G": total_norm(state.G).item(),
        # at most as many images at once as in a step, so that memory suffices
        "grad_norm_input": steepness(state, run.z[: min(PROBED, config.batch_size // config.accumulate)]),
        "lr_G": state.opt_G.param_groups[0]["lr"],
        "lr_D": state.opt_D.param_groups[0]["lr"],
        **({"augment_p": round(state.augment_p.item(), 6)} if state.adaptive else {}),
        **moving(config, images_seen(config, state.step - 1)),
        "seconds_per_step": seconds,
    }
    run.logger.write(state.step, line)
    beyond = [f"{name} is {line[name]:.3g}" for name in ("loss_D", "loss_G") if abs(line[name]) > BROKEN]
    if beyond and state.step == config.total_steps:  # said once; a NaN ends a run by itself
        told = f"{' and '.join(beyond)}, beyond {BROKEN:,.0f}: the run has diverged"
        run.logger.say(f"warning     {told}. A smaller learning rate or another normalization may help")
    run.start_clock()
    return line


@contextlib.contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode within it, so that u, v and statistics stay fixed."""
    before = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, training in zip(networks, before):
            network.train(training)


def probe(state: State, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Fixed real images, and samples that G in eval mode draws from z: both (n, C, H, W) in [-1, 1].

    Also returns the labels (n,) that images and samples share, or None for an unconditional run.
    """
    images, labels = state.batches.images, state.batches.labels
    chosen = spaced(len(images), len(z))
    labels = None if labels is None else labels[chosen.to(state.device)]
    images = images[chosen.to(images.device)].to(state.device)
    with torch.no_grad(), evaluating(state.G):
        return (images + 0.5) / 128 - 1, state.G(*given(z[: len(images)], labels)), labels


def steepness(state: State, z: Tensor) -> float:
    """The mean norm of D's input gradient over real images and samples, in eval mode."""
    real, fake, labels = probe(state, z)
    both = None if labels is None else torch.cat([labels, labels])
    with evaluating(state.D):
        return lipschitz.input_gradient_norms(state.D, torch.cat([real, fake]), both).mean().item()


def audit(run: Run) -> None:
    """Audit the current D and write the result to audits/step_NNNNNN.json."""
    check_weights(run.state)
    if rank() == 0:
        real, fake, labels = probe(run.state, run.z)
        text = json.dumps(lipschitz.audit(run.state.D, real, fake, labels)) + "\n"
        path = run.run_dir / "audits" / f"step_{run.state.step:06d}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)
    run.start_clock()


def preview(z: Tensor, classes: Classes | None) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """The inputs of a run's sample grids: z (n, z_dim), labels (n,) or None, and the names of the rows.

    z: the fixed latents (PREVIEW, z_dim). A conditional run has one class per row and one z per column.
    """
    if classes is None:
        return z, None, ()
    labels = classes.shown(ROWS)
    names = tuple(classes.names[label] for label in labels)
    return z[:COLUMNS].repeat(len(labels), 1), labels.repeat_interleave(COLUMNS).to(z.device), names


def sample(run: Run) -> None:
    """Draw samples from the fixed z in eval mode, and save samples/step_NNNNNN.png."""
    if rank() == 0:
        G, (z, labels, names) = run.state.scored, preview(run.z, run.state.classes)
        with torch.inference_mode(), evaluating(G):
            images = quantise(G(*given(z, labels))).cpu()
        drawn = grid(images, COLUMNS, names=names)
        drawn.save(run.run_dir / "samples" / f"step_{run.state.step:06d}.png")
        run.logger.picture(run.state.step, "samples", drawn)
    run.show.update(run.state.step)
    run.start_clock()


def score(run: Run) -> None:
    """Score the current generator under the first protocol, and log the scores."""
    state, config, evaluator = run.state, run.config, run.evaluator
    assert evaluator is not None  # otherwise no score is due
    check_weights(state)
    networks = {"": state.scored} | ({OWN: state.G} if config.eval_own and state.ema else {})
    wanted = Wanted(diagnostics=False, kid=config.eval_kid, neighbours=config.eval_neighbours)
    line: dict[str, Any] = {}
    for name, G in networks.items():
        source = Generated(G, config.z_dim, config.seed, state.device, classes=state.classes)
        facts = {"step": state.step, "ema": G is not state.G, "seed": config.seed}
        facts |= of_run(config, state.classes)
        try:
            results, _ = evaluator.evaluate(source, facts, config.protocol[:1], config.num_samples, wanted)
        except Stopped as stopped:  # during the training of the classifier; the run is saved after its next step
            run.signals.stop = stopped.exit_code - 128
            run.logger.say(str(stopped))
            return
        if rank() == 0:
            run.logger.say(f"step {state.step:,}{', G itself' * bool(name)}: {report.summary(results)}")
            line |= {key + name * (key != "protocol"): value for key, value in report.flat(results[0]).items()}
    if rank() == 0:
        run.logger.write(state.step, line)
    run.show.update(state.step)
    run.start_clock()


def announce(run: Run, images: Images, changes: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Print what is about to be trained.

    changes: sentences about what differs from before, in a resumed run. taken: sentences about the weights that a new
    run starts from.
    """
    config, state = run.config, run.state
    for note in images.origin.notes if images.origin else ():  # already printed when the images were loaded
        run.logger.note(f"data        {note}")
    size = f"up to {disk_use(state, config.keep) / 2**20:,.0f} MiB"
    told = [
        *[("resumed", f"at step {state.step:,}")] * bool(state.step),
        *(("changed", sentence) for sentence in changes),
        *_about_data(config, images),
        *(("start", sentence) for sentence in taken),
        *_about_training(config, state),
        ("run", f"{run.run_dir}: {size} of checkpoints (--keep {config.keep}), plus pictures"),
        *(("warning", sentence) for sentence in warnings(config, state.device.type)),
    ]
    for name, sentence in told:
        run.logger.say(f"{name:<12}{sentence}")


def _about_data(config: Config, images: Images) -> Iterator[tuple[str, str]]:
    n, channels, side, _ = images.images.shape
    yield "data", f"{config.dataset}: {n:,} images of {side}x{side}, {'grey' if channels == 1 else 'colour'}"
    if images.origin:
        sizes = images.origin.sizes
        least, most, usual = ("x".join(map(str, sizes[name])) for name in ("smallest", "largest", "commonest"))
        seen = f"from {least} to {most}, {sizes['different']:,} different, most often {usual}"
        yield "sizes", f"{seen}; {sizes['enlarged']:,} enlarged"
    if is_labelled(images):
        yield "classes", counted(images)


def _about_training(config: Config, state: State) -> Iterator[tuple[str, str]]:
    G, D = (f"{sum(p.numel() for p in net.parameters()):,}" for net in (state.G, state.D))
    parts = f", conditional by {config.conditional}" * (config.conditional != "none")
    parts += f", attention at side {config.attention}" * bool(config.attention)
    yield "networks", f"{config.model}{parts}: G {G} parameters, D {D} with d_norm {' + '.join(config.d_norm)}"
    where = f"{state.device}" if world_size() == 1 else f"{world_size()} processes, {state.device.type}"
    if state.device.type == "cpu":
        where += f", {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    penalties = zip((name for name in config.regularizer if name != "none"), state.objective.regularizers, strict=True)
    extra, every = "", config.regularizer_every
    lazy = f", times {every} in one of {every} updates of D" * (every > 1)
    for name, (found, weight) in penalties:
        moving = config.gamma_cosine if found.on_gradient else None
        shown = "{:g} to {:g}".format(*moving) if moving else f"{weight:g}"
        extra += f" + {name} (weight {shown}{lazy * found.on_gradient})"
    where += f", in {config.amp}" * (state.precision["D"].dtype is not None)
    yield "training", f"{config.loss}{extra}, {config.total_steps:,} steps of n_dis {config.n_dis} on {where}"
    wide = state.device.type == "cpu" and torch.get_num_threads() > 1  # as threads_of() has it
    if wide and config.amp == "none" and (gain := bf16_gain()) > WORTH_SAYING:
        yield "faster", f"--amp bf16: convolutions run {gain:.1f} times as fast on this processor (docs/performance.md)"
    if (usual := usual_steps(config)) and 2 * config.total_steps < usual:
        few = f"{config.total_steps:,} steps are few"
        yield "warning", f"{few}: the preset of {config.dataset} and {config.model} has {usual:,}"
    if state.objective.augment:
        yield "augmented", f"images that D sees: {', '.join(config.augment)}, with probability {config.augment_p}"


def counted(images: Images) -> str:
    """The image counts of the first SHOWN classes and of the rarest, in words."""
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    told = [f"{name} {count:,}" for name, count in zip(images.classes, counts)]
    told[SHOWN:] = ["..."] * (len(told) > SHOWN)
    least, rarest = min(zip(counts, images.classes))
    return f"{len(counts)}: {', '.join(told)}; the rarest is {rarest} with {least:,}"


def show_data(run: Run, images: Images) -> None:
    """Save training images as the grid samples/real.png, one class per row if labelled."""
    target = run.run_dir / "samples" / "real.png"
    if rank() > 0 or target.exists():
        return
    names: tuple[str, ...] = ()
    chosen = spaced(len(images.images), PREVIEW)
    if is_labelled(images) and len(images.classes) <= PREVIEW:  # with more classes, evenly spaced images show more
        there = images.labels.unique()  # a class may have no images
        shown = there[spaced(len(there), ROWS)]
        names = tuple(images.classes[label] for label in shown)
        rows = [(images.labels == label).nonzero().flatten() for label in shown]
        chosen = torch.cat([row[torch.arange(COLUMNS) * len(row) // COLUMNS] for row in rows])
    grid(images.images[chosen], COLUMNS, names=names).save(target)
