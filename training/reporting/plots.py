"""Pictures of a run: its curves, and the animation of its sample grids."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from evaluation.scores.registry import curves
from utils.files import write_atomically
from utils.plots import pyplot, save_gif

FRAMES = 60  # of an animation, at most
FRAME_MS, LAST_FRAME_MS = 150, 2000
# Settings, drawn where they move over a run
MOVING = [
    ("learning rate", {"lr_G": "G", "lr_D": "D"}, "linear"),
    ("weight of the gradient's penalty", {"gamma": "gamma"}, "linear"),
    ("Adam's beta2", {"beta2": "beta2"}, "linear"),
    ("half-life of the moving average, images", {"ema_half_life": "images"}, "linear"),
]
CAPTION = 16  # pixels beneath a frame, for its step


def grids_of(run_dir: str | Path) -> list[tuple[int, Path]]:
    """The sample grids of a run as [(step, path)] in the order of their steps, FRAMES of them at most."""
    paths = (Path(run_dir) / "samples").glob("step_*.png")
    found = sorted((int(path.stem[5:]), path) for path in paths if path.stem[5:].isdigit())
    if len(found) <= FRAMES:
        return found
    return [found[i * (len(found) - 1) // (FRAMES - 1)] for i in range(FRAMES)]


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text beneath it."""
    framed = ImageOps.expand(picture, (0, 0, 0, CAPTION), fill=255 if picture.mode == "L" else (255, 255, 255))
    ImageDraw.Draw(framed).text((4, picture.height + 2), text, fill=0 if picture.mode == "L" else (0, 0, 0))
    return framed


def animate(run_dir: str | Path) -> Path | None:
    """The sample grids of a run in the order of their steps, as plots/samples.gif. Returns its path, or None."""
    grids = grids_of(run_dir)
    if not grids:
        return None
    target = Path(run_dir) / "plots" / "samples.gif"
    frames = [captioned(Image.open(path), f"step {step:,}") for step, path in grids]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    write_atomically(target, lambda temporary: save_gif(temporary, frames, durations), durable=False)
    return target


def plot_curves(run_dir: str | Path, stats: list[dict[str, Any]], title: str) -> Path | None:
    """Losses, logits, gradient norms and scores over G's updates, as plots/curves.png. Returns its path."""
    plt = pyplot()
    panels = [
        ("loss", {"loss_D": "D", "loss_G": "G"}, "linear"),
        ("mean logit of D", {"real_logits": "D(real)", "fake_logits": "D(fake)"}, "linear"),
        ("gradient norm", {"grad_norm_D": "D", "grad_norm_G": "G", "grad_norm_input": "D's input"}, "log"),
        ("accuracy of D", {"accuracy_D": "D"}, "linear"),
        ("probability of augmentation", {"augment_p": "p"}, "linear"),
    ]
    scores = curves("inception_score", "fid")
    panels += [(score, lines, "log" if log else "linear") for score, (lines, log) in scores.items()]
    panels = [panel for panel in panels if any(name in line for line in stats for name in panel[1])]
    panels += [panel for panel in MOVING if any(len({line.get(name) for line in stats}) > 1 for name in panel[1])]
    if not panels:
        return None
    columns = 2 if len(panels) == 4 else 3
    rows = -(-len(panels) // columns)
    size = (4.2 * columns, 3.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (label, series, scale) in zip(axes.flat, panels):
        for name, short in series.items():
            if points := [(line["step"], line[name]) for line in stats if line.get(name) is not None]:
                axis.plot(*zip(*points), label=short, marker="o" if len(points) < 20 else None, ms=3)
        axis.set(xlabel="step (updates of G)", ylabel=label, yscale=scale)
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    protocol = next((line["protocol"] for line in stats if "protocol" in line), None)
    figure.suptitle(f"{title}\nscores: {protocol}" if protocol else title)
    target = Path(run_dir) / "plots" / "curves.png"
    write_atomically(target, lambda temporary: figure.savefig(temporary, format="png", dpi=110), durable=False)
    plt.close(figure)
    return target
