"""Pictures of a run: curves, and an animation of the sample grids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from evaluation.scores.registry import SCORES, curves
from utils.files import write_atomically
from utils.plots import DASHES, pyplot, save_gif, scaled

FRAMES = 60  # at most, in an animation
FRAME_MS, LAST_FRAME_MS = 150, 2000
CAPTION = 16  # pixels below a frame, for its step
# title -> ({statistic: name of its line}, whether the axis is logarithmic). The page has all of these, and a panel for
# every other statistic in stats.jsonl.
PANELS: dict[str, tuple[dict[str, str], bool]] = {
    "loss": ({"loss_D": "D", "loss_G": "G"}, False),
    "mean logit of D": ({"real_logits": "D(real)", "fake_logits": "D(fake)"}, False),
    "accuracy of D": ({"accuracy_D": "D"}, False),
    "gradient norm": ({"grad_norm_D": "D", "grad_norm_G": "G", "grad_norm_input": "D's input"}, True),
    "probability of augmentation": ({"augment_p": "p"}, False),
    "learning rate": ({"lr_G": "G", "lr_D": "D"}, False),
    "weight of the gradient penalty": ({"gamma": "gamma"}, False),
    "Adam's beta2": ({"beta2": "beta2"}, False),
    "half-life of the moving average": ({"ema_half_life": "images"}, False),
    **curves(*SCORES),
    "seconds per step": ({"seconds_per_step": "seconds"}, False),
}
# curves.png has the panels DRAWN, and those MOVING whose values change.
DRAWN = ["loss", "mean logit of D", "gradient norm", "accuracy of D", "probability of augmentation"]
DRAWN += curves("inception_score", "fid")
MOVING = ("learning rate", "weight of the gradient penalty", "Adam's beta2", "half-life of the moving average")


def points_of(stats: Sequence[Mapping[str, Any]], lines: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
    """The lines of a panel as {name: [(step, value)]}, without values that are not numbers."""
    return {
        name: [(line["step"], line[key]) for line in stats if type(line.get(key)) in (int, float)]
        for key, name in lines.items()
    }


def grids_of(run_dir: str | Path) -> list[tuple[int, Path]]:
    """A run's sample grids as [(step, path)], ordered by step; at most FRAMES, evenly spaced."""
    paths = (Path(run_dir) / "samples").glob("step_*.png")
    found = sorted((int(path.stem[5:]), path) for path in paths if path.stem[5:].isdigit())
    if len(found) <= FRAMES:
        return found
    return [found[i * (len(found) - 1) // (FRAMES - 1)] for i in range(FRAMES)]


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """Add a line of text below a picture."""
    framed = ImageOps.expand(picture, (0, 0, 0, CAPTION), fill=255 if picture.mode == "L" else (255, 255, 255))
    ImageDraw.Draw(framed).text((4, picture.height + 2), text, fill=0 if picture.mode == "L" else (0, 0, 0))
    return framed


def animate(run_dir: str | Path) -> None:
    """Save a run's sample grids, if any, as the animation plots/samples.gif."""
    grids = grids_of(run_dir)
    if not grids:
        return
    target = Path(run_dir) / "plots" / "samples.gif"
    frames = [captioned(Image.open(path), f"step {step:,}") for step, path in grids]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    write_atomically(target, lambda temporary: save_gif(temporary, frames, durations), durable=False)


def plot_curves(run_dir: str | Path, stats: list[dict[str, Any]], title: str) -> None:
    """Save curves of losses, logits, gradient norms and scores, if any, as plots/curves.png."""
    panels = [name for name in DRAWN if any(key in line for line in stats for key in PANELS[name][0])]
    panels += [name for name in MOVING if any(len({line.get(key) for line in stats}) > 1 for key in PANELS[name][0])]
    if not panels:
        return
    plt = pyplot()
    columns = 2 if len(panels) == 4 else 3
    rows = -(-len(panels) // columns)
    size = (4.2 * columns, 3.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels):
        lines, log = PANELS[panel]
        for dashes, (name, points) in zip(DASHES, points_of(stats, lines).items()):
            if points:
                axis.plot(*zip(*points), label=name, linestyle=dashes, marker="o" if len(points) < 20 else None, ms=3)
        axis.set(xlabel="step (updates of G)", ylabel=panel)
        scaled(axis, "log" if log else "linear")
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    protocol = next((line["protocol"] for line in stats if "protocol" in line), None)
    figure.suptitle(f"{title}\nscores: {protocol}" if protocol else title)
    target = Path(run_dir) / "plots" / "curves.png"
    write_atomically(target, lambda temporary: figure.savefig(temporary, format="png", dpi=110), durable=False)
    plt.close(figure)
