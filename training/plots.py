"""Pictures of a run: its curves, and the animation of its sample grids."""

from pathlib import Path
from typing import Any

from PIL import Image

from utils.plots import pyplot, save_gif

FRAMES = 60  # of an animation, at most
FRAME_MS, LAST_FRAME_MS = 150, 2000


def animate(run_dir: str | Path) -> Path | None:
    """The sample grids of a run in the order of their steps, as plots/samples.gif. Returns its path, or None."""
    paths = sorted((Path(run_dir) / "samples").glob("step_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    if not paths:
        return None
    if len(paths) > FRAMES:
        paths = [paths[i * (len(paths) - 1) // (FRAMES - 1)] for i in range(FRAMES)]
    target = Path(run_dir) / "plots" / "samples.gif"
    frames = [Image.open(path) for path in paths]
    save_gif(target, frames, [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS])
    return target


def plot_curves(run_dir: str | Path, stats: list[dict[str, Any]], title: str) -> Path | None:
    """Losses, logits, gradient norms and scores over G's updates, as plots/curves.png. Returns its path."""
    plt = pyplot()
    panels = [
        ("loss", {"loss_D": "D", "loss_G": "G"}, "linear"),
        ("mean logit of D", {"real_logits": "D(real)", "fake_logits": "D(fake)"}, "linear"),
        ("gradient norm", {"grad_norm_D": "D", "grad_norm_G": "G", "grad_norm_input": "D's input"}, "log"),
        ("accuracy of D", {"accuracy_D": "D"}, "linear"),
        ("Inception Score", {"inception_score": "IS"}, "linear"),
        ("FID", {"fid": "FID"}, "log"),
    ]
    panels = [panel for panel in panels if any(name in line for line in stats for name in panel[1])]
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
            points = [(line["step"], line[name]) for line in stats if line.get(name) is not None]
            axis.plot(
                *zip(*points) if points else ([], []), label=short, marker="o" if len(points) < 20 else None, ms=3
            )
        axis.set(xlabel="step (updates of G)", ylabel=label, yscale=scale)
        axis.grid(alpha=0.3)
        if len(series) > 1:
            axis.legend(frameon=False)
    protocol = next((line["protocol"] for line in stats if "protocol" in line), None)
    figure.suptitle(f"{title}\nscores: {protocol}" if protocol else title)
    target = Path(run_dir) / "plots" / "curves.png"
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target
