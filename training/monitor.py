"""What a run says, draws and scores while it trains. Under torchrun rank 0 alone writes."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from datasets import Classes, Images, quantise, spaced
from datasets.images import Origin
from evaluation.discriminator import lipschitz
from evaluation.evaluator import Wanted
from evaluation.inputs.features import is_labelled
from evaluation.inputs.sampling import Generated
from evaluation.protocol import of_run
from evaluation.results import report
from evaluation.scores.registry import OWN
from models.conditional import given
from settings.config import Config
from settings.rules import PENALTIES, warnings
from utils.distributed import rank, world_size
from utils.errors import Diverged, Stopped
from utils.files import write_text
from utils.plots import grid

from .objective import Objective
from .schedule import images_seen, moving
from .state import STATISTICS, State, check_weights, disk_use

if TYPE_CHECKING:
    from .run import Run

PREVIEW = 100  # samples in a grid
SHOWN = 20  # classes in the line of their counts
ROWS = COLUMNS = 10  # of a conditional run's grid: classes at most, and samples of each
PROBED = 64  # real images, and samples, at which each line of the log measures D's gradient
PREVIEW_SEED = 20180216  # of the fixed z: the same for every run, so that runs compare


def total_norm(network: nn.Module) -> Tensor:
    """The norm of all gradients that the last backward left in a network's parameters."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def check_finite(state: State) -> Tensor:
    """The STATISTICS of the steps since the last line of the log; Diverged, with the step, where not finite."""
    history = state.history().double().cpu()  # (0, 5) where nothing came since
    first = state.step - len(history) + 1
    if (broken := ~history.isfinite().all(dim=1)).any():
        at = int(broken.nonzero()[0])
        loss = "loss_D" if not history[at, [0, 2, 3]].isfinite().all() else "loss_G"
        raise Diverged(f"{loss} is not finite at step {first + at} (loss_D {history[at, 0]}, loss_G {history[at, 1]})")
    return history


def log(run: "Run") -> dict[str, float]:
    """Write the statistics since the last line into stats.jsonl. Returns them."""
    state, config, seconds = run.state, run.config, run.seconds_per_step()
    means = dict(zip(STATISTICS, check_finite(state).mean(dim=0).tolist()))
    state.averaged = []
    line = means | {
        "grad_norm_D": total_norm(state.D).item(),
        "grad_norm_G": total_norm(state.G).item(),
        # No more images at once than in a step.
        "grad_norm_input": steepness(state, run.z[: min(PROBED, config.batch_size // config.accumulate)]),
        "lr_G": state.opt_G.param_groups[0]["lr"],
        "lr_D": state.opt_D.param_groups[0]["lr"],
        **({"augment_p": state.augment_p.item()} if state.adaptive else {}),
        **moving(config, images_seen(config, state.step - 1)),
        "seconds_per_step": seconds,
    }
    run.logger.write(state.step, line)
    if share := run.waiting.slowed():
        advice = "end some, or take fewer --threads" if torch.get_num_threads() > 1 else "end some of them"
        run.logger.say(f"slowed      other programs had the cores {share:.0%} of the time, the run waited: {advice}")
    run.start_clock()
    return line


@contextlib.contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Within it the networks are in eval mode: no u, v or statistics of theirs move."""
    before = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, training in zip(networks, before):
            network.train(training)


def probe(state: State, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Fixed real images, in [-1, 1], and samples of G in eval mode from z, one for each z: twice (n, C, H, W).

    And of a conditional run the labels (n,) of the images, of which the samples are too.
    """
    images, labels = state.batches.images, state.batches.labels
    chosen = spaced(len(images), len(z))
    labels = None if labels is None else labels[chosen.to(state.device)]
    images = images[chosen.to(images.device)].to(state.device)
    with torch.no_grad(), evaluating(state.G):
        return (images + 0.5) / 128 - 1, state.G(*given(z[: len(images)], labels)), labels


def steepness(state: State, z: Tensor) -> float:
    """The mean norm of D's gradient with respect to its input, over real images and samples, in eval mode."""
    real, fake, labels = probe(state, z)
    both = None if labels is None else torch.cat([labels, labels])
    with evaluating(state.D):
        return lipschitz.input_gradient_norms(state.D, torch.cat([real, fake]), both).mean().item()


def audit(run: "Run") -> None:
    """Write the audit of D as it is now to audits/step_NNNNNN.json."""
    check_weights(run.state)
    if rank() == 0:
        real, fake, labels = probe(run.state, run.z)
        text = json.dumps(lipschitz.audit(run.state.D, real, fake, labels, labels)) + "\n"
        path = run.run_dir / "audits" / f"step_{run.state.step:06d}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)
    run.start_clock()  # it is no part of a step's time


class Preview(NamedTuple):
    """What a run's grids are drawn from: z (n, z_dim) and, of a conditional run, labels (n,) and its rows' names."""

    z: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()


def preview(z: Tensor, classes: Classes | None) -> Preview:
    """That of a run with the fixed z (PREVIEW, z_dim): of a conditional one a row a class, with one z a column."""
    if classes is None:
        return Preview(z)
    labels = classes.shown(ROWS)
    names = tuple(classes.names[label] for label in labels)
    return Preview(z[:COLUMNS].repeat(len(labels), 1), labels.repeat_interleave(COLUMNS).to(z.device), names)


def preview_latents(z_dim: int, device: torch.device | str) -> Tensor:
    """The fixed z of a run's grids."""
    return torch.randn(PREVIEW, z_dim, generator=torch.Generator().manual_seed(PREVIEW_SEED)).to(device)


def sample(run: "Run") -> None:
    """Draw the grid of the fixed z in eval mode and save it under the step's name."""
    if rank() == 0:
        G, (z, labels, names) = run.state.scored, preview(run.z, run.state.classes)
        with torch.inference_mode(), evaluating(G):
            images = quantise(G(*given(z, labels))).cpu()
        drawn = grid(images, COLUMNS, names=names)
        drawn.save(run.run_dir / "samples" / f"step_{run.state.step:06d}.png")
        run.logger.picture(run.state.step, "samples", drawn)
    run.show.update()


def score(run: "Run") -> None:
    """Score the generator as it is now under the first protocol, into the log and stats.jsonl."""
    state, config, evaluator = run.state, run.config, run.evaluator
    assert evaluator is not None  # or it is not due
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
        except Stopped as stopped:  # while the classifier was trained; the run is saved after its next step
            run.signals.stop = stopped.exit_code - 128
            run.logger.say(str(stopped))
            return
        if rank() == 0:
            run.logger.say(f"step {state.step:,}{', G itself' * bool(name)}: {report.summary(results)}")
            line |= {key + name * (key != "protocol"): value for key, value in report.flat(results[0]).items()}
    if rank() == 0:
        run.logger.write(state.step, line)
    run.show.update()
    run.start_clock()  # it is no part of a step's time


def _weighed(config: Config, objective: Objective) -> Iterator[str]:
    """D's regularizers, each with its weight."""
    names = (name for name in config.regularizer if name != "none")
    for name, (_, weight) in zip(names, objective.regularizers, strict=True):
        moving = config.gamma_cosine if name in PENALTIES else None
        yield f"{name} (weight {'{:g} to {:g}'.format(*moving) if moving else f'{weight:g}'})"


def announce(run: "Run", images: Images, changes: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Say what is about to be trained.

    changes: sentences about what is other than before, in a run that goes on; taken: about the weights that a new one
    starts from.
    """
    config, state, logger = run.config, run.state, run.logger
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", state.G), ("D", state.D))}
    if state.step:
        left = "" if state.step < config.total_steps else ": nothing is left to train"
        logger.say(f"resumed     at step {state.step:,}{left}")
    for sentence in changes:
        logger.say(f"changed     {sentence}")
    n, channels, side, _ = images.images.shape
    norm, extra = " + ".join(config.d_norm), "".join(f" + {name}" for name in _weighed(config, state.objective))
    where = f"{state.device}" if world_size() == 1 else f"{world_size()} processes, {state.device.type}"
    if state.device.type == "cpu":
        where += f", {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    grey = "grey" if channels == 1 else "colour"
    logger.say(f"data        {config.dataset}: {n:,} images of {side}x{side}, {grey}")
    if images.origin:
        logger.say(f"sizes       {sizes_found(images.origin)}")
        for note in images.origin.notes:  # which were said when the images were loaded
            logger.note(f"data        {note}")
    if is_labelled(images):
        logger.say(f"classes     {counted(images)}")
    for sentence in taken:
        logger.say(f"start       {sentence}")
    parts = "".join(f", {what} {value}" for what, value in _parts(config))
    logger.say(f"networks    {config.model}{parts}: G {count['G']:,} parameters, D {count['D']:,} with d_norm {norm}")
    logger.say(f"training    {config.loss}{extra}, {config.total_steps:,} steps of n_dis {config.n_dis} on {where}")
    if state.objective.augment:
        logger.say(f"augmented   what D sees: {', '.join(config.augment)}, with probability {config.augment_p}")
    size = disk_use(state, config.keep) / 2**20
    logger.say(
        f"run         {run.run_dir}: up to {size:,.0f} MiB of checkpoints (--keep {config.keep}), beside pictures"
    )
    for sentence in warnings(config, state.device.type == "cuda"):
        logger.say(f"warning     {sentence}")


def counted(images: Images) -> str:
    """How many images each class has, for up to SHOWN of them, and which is the rarest."""
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    rarest = min(range(len(counts)), key=counts.__getitem__)
    told = ", ".join(f"{name} {count:,}" for name, count in zip(images.classes, counts)) if len(counts) <= SHOWN else ""
    return f"{len(counts)}{': ' if told else ''}{told}; the rarest is {images.classes[rarest]} with {counts[rarest]:,}"


def sizes_found(origin: Origin) -> str:
    """The sizes of the files that images come from, in words."""
    least, most, usual = ("x".join(map(str, origin.sizes[name])) for name in ("smallest", "largest", "commonest"))
    if origin.sizes["different"] == 1:
        told = f"all {usual}"
    else:
        told = f"from {least} to {most}, {origin.sizes['different']:,} different, most often {usual}"
    return told + f"; {origin.sizes['enlarged']:,} were enlarged" * bool(origin.sizes["enlarged"])


def show_data(run: "Run", images: Images) -> None:
    """Save a grid of training images as samples/real.png, a row a class where there are classes."""
    target = run.run_dir / "samples" / "real.png"
    if rank() > 0 or target.exists():
        return
    names: tuple[str, ...] = ()
    chosen = spaced(len(images.images), PREVIEW)
    if is_labelled(images) and len(images.classes) <= PREVIEW:  # of more, evenly spaced images show more
        there = images.labels.unique()  # a class can have lost all its images, or never had any
        shown = there[spaced(len(there), ROWS)]
        names = tuple(images.classes[label] for label in shown)
        rows = [(images.labels == label).nonzero().flatten() for label in shown]
        chosen = torch.cat([row[torch.arange(COLUMNS) * len(row) // COLUMNS] for row in rows])
    grid(images.images[chosen], COLUMNS, names=names).save(target)


def _parts(config: Config) -> Iterator[tuple[str, Any]]:
    """What a run's networks have beside those of the paper: what it is called, and which."""
    if config.conditional != "none":
        yield "conditional by", config.conditional
    if config.attention:
        yield "attention at side", config.attention


def finish_pictures(run: "Run") -> None:
    """The page, the curves and the animation of what was trained so far, and how it ended."""
    run.show.end(run.ended)
