"""What a run says, draws and scores while it trains. Under torchrun rank 0 alone writes."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from datasets import Images, quantise
from evaluation import lipschitz, report
from evaluation.diagnostics import spaced
from evaluation.sampling import Generated
from utils.combinations import warnings
from utils.distributed import rank, world_size
from utils.errors import Diverged
from utils.files import write_text
from utils.plots import grid

from . import plots
from .logger import read_stats
from .state import STATISTICS, State, check_weights, disk_use

if TYPE_CHECKING:
    from .run import Run

PREVIEW = 100  # samples in a grid
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
        "seconds_per_step": seconds,
    }
    run.logger.write(state.step, line)
    if share := run.waiting.slowed():
        advice = "end some, or take fewer --threads" if torch.get_num_threads() > 1 else "end some of them"
        run.logger.say(f"slowed      others have the cores, waited for {share:.0%} of the time: {advice}")
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


def probe(state: State, z: Tensor) -> tuple[Tensor, Tensor]:
    """Fixed real images, in [-1, 1], and samples of G in eval mode from z, one for each z: twice (n, C, H, W)."""
    images = state.batches.images
    images = images[spaced(len(images), len(z)).to(images.device)].to(state.device)
    with torch.no_grad(), evaluating(state.G):
        return (images + 0.5) / 128 - 1, state.G(z[: len(images)])


def steepness(state: State, z: Tensor) -> float:
    """The mean norm of D's gradient with respect to its input, over real images and samples, in eval mode."""
    with evaluating(state.D):
        return lipschitz.input_gradient_norms(state.D, torch.cat(probe(state, z))).mean().item()


def audit(run: "Run") -> None:
    """Write the audit of D as it is now to audits/step_NNNNNN.json."""
    check_weights(run.state)
    if rank() == 0:
        text = json.dumps(lipschitz.audit(run.state.D, *probe(run.state, run.z))) + "\n"
        path = run.run_dir / "audits" / f"step_{run.state.step:06d}.json"
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)
    run.start_clock()  # it is no part of a step's time


def preview_latents(z_dim: int, device: torch.device | str) -> Tensor:
    """The fixed z of a run's grids."""
    return torch.randn(PREVIEW, z_dim, generator=torch.Generator().manual_seed(PREVIEW_SEED)).to(device)


def sample(run: "Run") -> None:
    """Draw the grid of the fixed z in eval mode and save it under the step's name."""
    if rank() == 0:
        G = run.state.scored
        with torch.inference_mode(), evaluating(G):
            images = quantise(G(run.z)).cpu()
        grid(images).save(run.run_dir / "samples" / f"step_{run.state.step:06d}.png")


def score(run: "Run") -> None:
    """Score the generator as it is now under the first protocol, into the log and stats.jsonl."""
    state, config, evaluator = run.state, run.config, run.evaluator
    assert evaluator is not None  # or it is not due
    check_weights(state)
    source = Generated(state.scored, config.z_dim, config.seed, state.device)
    facts = {"step": state.step, "ema": state.ema is not None, "seed": config.seed}
    results, _ = evaluator.evaluate(
        source, facts, config.protocol[:1], config.num_samples, quick=True, kid=config.eval_kid
    )
    if rank() == 0:
        run.logger.say(f"step {state.step:,}: {report.summary(results)}")
        run.logger.write(state.step, report.flat(results[0]))
    run.start_clock()  # it is no part of a step's time


def announce(run: "Run", images: Images, changes: Iterable[str]) -> None:
    """Say what is about to be trained. changes: sentences about what is other than before, in a run that goes on."""
    config, state, logger = run.config, run.state, run.logger
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("G", state.G), ("D", state.D))}
    if state.step:
        left = "" if state.step < config.total_steps else ": nothing is left to train"
        logger.say(f"resumed     at step {state.step:,}{left}")
    for sentence in changes:
        logger.say(f"changed     {sentence}")
    n, channels, side, _ = images.images.shape
    norm, extra = " + ".join(config.d_norm), f" + {config.regularizer}" if config.regularizer != "none" else ""
    where = f"{state.device}" if world_size() == 1 else f"{world_size()} processes, {state.device.type}"
    if state.device.type == "cpu":
        where += f", {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    logger.say(f"data        {config.dataset}: {n:,} images of {side}x{side}, {'grey' if channels == 1 else 'colour'}")
    logger.say(f"networks    {config.model}: G {count['G']:,} parameters, D {count['D']:,} with d_norm {norm}")
    logger.say(f"training    {config.loss}{extra}, {config.total_steps:,} steps of n_dis {config.n_dis} on {where}")
    size = disk_use(state, config.keep) / 2**20
    logger.say(
        f"run         {run.run_dir}: up to {size:,.0f} MiB of checkpoints (--keep {config.keep}), beside pictures"
    )
    for sentence in warnings(config, state.device.type == "cuda"):
        logger.say(f"warning     {sentence}")


def finish_pictures(run: "Run") -> None:
    """The curves and the animation of what was trained so far. A picture that fails must not hide how the run ended."""
    if rank() > 0:
        return
    config, run_dir = run.config, run.run_dir
    title = f"{config.dataset}, {config.model}, {config.loss}, D: {' + '.join(config.d_norm)}"
    try:
        plots.plot_curves(run_dir, read_stats(run_dir), title)
        plots.animate(run_dir)
    except Exception as error:  # whatever matplotlib and Pillow make of files that somebody else may have changed
        with contextlib.suppress(OSError):  # where the disk is full, log.txt cannot be written either
            run.logger.say(f"warning     the pictures in {run_dir / 'plots'} could not be made: {error}")
