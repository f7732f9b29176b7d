"""The game of G and D in a plane, as a film: D is a landscape over the points, and G moves its points uphill.

Each value of a setting is a panel, such as those of --d_norm none spectral. The updates are those of train.py.
"""

import utils  # noqa: F401, first, since it reports missing packages

# isort: split
import argparse
import dataclasses
import itertools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from datasets.points import TARGETS
from losses.regularizers import input_gradient
from models.normalization import apply_weight_norm, feature_norm
from settings.command_line import Parser, a_path
from settings.config import Config, to_flag
from settings.layers import checked
from settings.rules import check_combinations
from train import discriminator_step, generator_step
from training.monitor import evaluating
from training.objective import Batch, Objective
from training.reporting.charts import chart
from training.reporting.rendering import embedded, render
from utils.errors import UserError, run_as_script
from utils.files import make_folder
from utils.plots import pyplot, save_gif

COMPARED = {"d_norm": "none spectral", "regularizer": "none", "loss": "hinge", "lr_G": "1e-3", "lr_D": "1e-3"}
COMPARED |= {"betas": "0.5,0.999", "n_dis": "1", "regularizer_weight": "none"}  # of each, the words of its panels
SHARED = {"total_steps": "2000", "seed": "0"}
TITLES = {"slope": "Steepest slope of D", "good": "Share of good samples", "modes": "Modes with a good sample"}
WIDTH, Z_DIM, BATCH = 64, 2, 128
FRAMES, SHOWN, ARROWS, SIDE = 30, 256, 24, 48  # of the film; points of G and arrows in a panel; heights along a side
COUNTED = 2500  # samples that are judged


def networks(config: Config, points: str) -> tuple[nn.Sequential, nn.Sequential]:
    """G: z (N, Z_DIM) -> points (N, dimensions, 1, 1), and D: points -> logits (N, 1), both small perceptrons.

    dirac: G(z) = theta, which starts at 1, and D(x) = psi x, which starts near 0 (Mescheder et al. 2018, section 2).
    """
    if points == "dirac":
        theta, psi = nn.Linear(Z_DIM, 1), nn.Linear(1, 1, bias=False)
        for parameter, value in ((theta.weight.requires_grad_(False), 0.0), (theta.bias, 1.0), (psi.weight, 1e-9)):
            nn.init.constant_(parameter, value)
        G, D = nn.Sequential(theta, nn.Unflatten(1, (1, 1, 1))), nn.Sequential(nn.Flatten(), psi)
    else:
        hidden, layers = [], []
        for inputs in (2, WIDTH, WIDTH):  # which z and points have
            hidden += [nn.Linear(inputs, WIDTH), nn.ReLU()]
            layers += [nn.Linear(inputs, WIDTH), feature_norm(config.d_norm, WIDTH), nn.LeakyReLU(0.2)]
        G = nn.Sequential(*hidden, nn.Linear(WIDTH, 2), nn.Unflatten(1, (2, 1, 1)))
        D = nn.Sequential(nn.Flatten(), *layers, nn.Linear(WIDTH, 1))
    apply_weight_norm(D, config.d_norm)
    return G, D


class Frame(NamedTuple):
    """Points of G (SHOWN, 2), D's gradient at some of them, and D's heights (SIDE, SIDE). dirac: only (theta, psi)."""

    step: int
    points: Tensor
    gradients: Any = None
    heights: Any = None
    modes: int = 0
    good: float = 0.0
    slope: float = 0.0


def play(config: Config, points: str) -> Iterator[Frame]:
    """Train one panel with the updates of train.py (dirac: by plain gradient descent), and yield its FRAMES frames."""
    torch.manual_seed(config.seed)
    random, target, objective = torch.Generator().manual_seed(config.seed), TARGETS[points], Objective.of(config)
    G, D = networks(config, points)
    theta, psi = (list(net.parameters())[-1].detach() for net in (G, D))  # which dirac has no others besides
    optimizer: Any = torch.optim.SGD if points == "dirac" else partial(torch.optim.Adam, betas=config.betas)
    opt_G, opt_D = optimizer(G.parameters(), config.lr_G), optimizer(D.parameters(), config.lr_D)
    path: list[Tensor] = []
    axis = torch.linspace(-1, 1, SIDE) * reach(points)
    plane = torch.cartesian_prod(axis, axis)[..., None, None]
    shown_z, counted_z = (torch.randn(count, Z_DIM, generator=random) for count in (SHOWN, COUNTED))
    due = {round(i * config.total_steps / (FRAMES - 1)) for i in range(FRAMES)}
    for step in range(config.total_steps + 1):
        if points == "dirac":
            path.append(torch.cat([theta, psi.flatten()]))
        if step in due and path:
            yield Frame(step, torch.stack(path))
        elif step in due:
            with evaluating(G, D):
                shown, counted = G(shown_z).detach(), G(counted_z).detach().flatten(1)
                slopes = input_gradient(D, torch.cat([shown, plane])).detach().flatten(1)
                heights = D(plane).detach().view(SIDE, SIDE).T.numpy()
            steepest = slopes.norm(dim=1).max().item()
            yield Frame(step, shown.flatten(1), slopes[:ARROWS], heights, *target.judge(counted), steepest)
        for i in range(config.n_dis):
            z, real = torch.randn(BATCH, Z_DIM, generator=random), target.sample(BATCH, random)
            alpha, noise = torch.rand(BATCH, 1, 1, 1, generator=random), torch.randn(real.shape, generator=random)
            update = objective.at(step * config.n_dis + i)
            discriminator_step(G, D, opt_D, Batch(z, real, alpha, noise=noise), update)
        batch = Batch(torch.randn(BATCH, Z_DIM, generator=random), target.sample(BATCH, random))
        generator_step(G, D, opt_G, batch if objective.paired else batch._replace(real=None), objective)


def reach(points: str) -> float:
    """The largest coordinate of a panel."""
    return 1.5 if points == "dirac" else 1.25 * TARGETS[points].centres.abs().max().item()


def told(frame: Frame, points: str) -> str:
    """One line about a frame."""
    if frame.heights is None:
        return f"step {frame.step:,}: {frame.points[-1].norm():.2f} from the equilibrium"
    modes = f"{frame.modes} of {len(TARGETS[points].centres)} modes, " * TARGETS[points].modes
    return f"step {frame.step:,}: {modes}{frame.good:.0%} good, slope {frame.slope:.2g}"


def draw(frames: Sequence[Frame], names: Sequence[str], points: str) -> Image.Image:
    """The panels of one moment, side by side."""
    figure = pyplot().figure(figsize=(4.8 * len(frames), 5.3), dpi=75, layout="constrained")
    end, (centres, _, modes) = reach(points), TARGETS[points]
    for axes, frame, name in zip(figure.subplots(1, len(frames), squeeze=False)[0], frames, names):
        axes.set(title=f"{name}\n{told(frame, points)}", xlim=(-end, end), ylim=(-end, end), aspect="equal")
        x, y = frame.points.T.numpy()
        if frame.heights is None:
            axes.plot(x, y, "-", x[-1:], y[-1:], "o", [0], [0], "k+", color="tab:blue")
            axes.set(xlabel="theta: where G puts its points", ylabel="psi: the slope of D")
            continue
        box = {"extent": (-end, end, -end, end)}
        axes.imshow(frame.heights, origin="lower", cmap="RdYlBu_r", interpolation="bilinear", **box)
        axes.contour(frame.heights, 12, colors="black", linewidths=0.4, alpha=0.6, **box)
        axes.scatter(*centres.T.numpy(), s=60 if modes else 4, c="white", edgecolors="black", linewidths=0.4)
        axes.scatter(x, y, s=5, c="black")
        arrows = frame.gradients * 0.25 * end / (frame.gradients.norm(dim=1, keepdim=True) + 1)
        ends = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(x[:ARROWS], y[:ARROWS], *arrows.T.numpy(), width=0.006, color="tab:green", **ends)
    (canvas := figure.canvas).draw()
    pyplot().close(figure)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Config]]:
    """Returns (namespace, {a panel's name: its settings})."""
    parser = Parser(__doc__, "--points ring --d_norm none spectral")
    add = parser.add_argument
    add("--points", choices=TARGETS, default="ring", help="the real points; dirac: one point, in one dimension")
    add("--out", type=a_path, default="plane", help="folder of the film, its last frame and the page (default: plane)")
    for name, default in (COMPARED | SHARED).items():
        many, more = ("+", "a panel for each value; a comma joins several; ") if name in COMPARED else (None, "")
        add(f"--{name}", nargs=many, default=default.split(), help=f"{more}default: {default}")
    given, panels = parser.parse_args(argv), {}
    words = {name: getattr(given, name) for name in (COMPARED | SHARED)}
    try:
        values = {n: [checked(n, word) for word in ([w] if isinstance(w, str) else w)] for n, w in words.items()}
    except ValueError as error:
        raise UserError(f"--{error}") from error
    for choice in itertools.product(*values.values()):
        settings = dict(zip(values, choice))
        several = [to_flag(value) for name, value in settings.items() if len(values[name]) > 1]
        config = dataclasses.replace(Config(), **settings)
        check_combinations(config)
        panels[", ".join(several) or to_flag(config.d_norm)] = config
    return given, panels


def main(argv: Sequence[str] | None = None) -> None:
    given, panels = parse_args(argv)
    points = given.points
    film, last, page, video = (Path(given.out, points + ending) for ending in (".gif", ".png", ".html", ".mp4"))
    make_folder(film.parent)
    found = {name: list(play(config, points)) for name, config in panels.items()}
    pictures = [draw(frames, list(found), points) for frames in zip(*found.values())]
    save_gif(film, pictures, [150] * (len(pictures) - 1) + [3000])
    pictures[-1].save(last)
    if shutil.which("ffmpeg"):
        even = ("-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p")
        subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", film, *even, video], check=True)
    sentences = [f"{name}: {told(frames[-1], points)}" for name, frames in found.items()]
    charts = []
    for key, title in TITLES.items() if points != "dirac" else ():
        curves = {name: [(f.step, getattr(f, key)) for f in frames] for name, frames in found.items()}
        charts.append(chart(title, curves, log=key == "slope"))
    values = {"title": f"G and D in a plane: {points}", "film": embedded(film, None)}
    page.write_text(render("plane.html", sentences=sentences, charts=charts, **values), encoding="utf-8")
    print("\n".join([*sentences, *(f"written to {path}" for path in (film, last, page, video) if path.exists())]))


if __name__ == "__main__":
    run_as_script(main)
