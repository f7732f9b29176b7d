"""Pictures: sample grids, their animation, curves and latent interpolations. Images are (N, C, H, W) uint8."""

import math
from pathlib import Path

import torch
from PIL import Image

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, so that a person can see them
GAP = 2  # pixels between images
FRAMES = 60  # of an animation, at most
FRAME_MS, LAST_FRAME_MS = 150, 2000


def grid(images, columns=None):
    """Lay images out in rows, small ones enlarged without smoothing. Returns a PIL image; square by default."""
    columns = columns or math.isqrt(len(images) - 1) + 1
    factor = max(1, -(-MIN_CELL // images.size(-1)))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    array = canvas.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)


def animate(run_dir):
    """The sample grids of a run in the order of their steps, as plots/samples.gif. Returns its path, or None."""
    paths = sorted((Path(run_dir) / "samples").glob("step_*.png"), key=lambda path: int(path.stem.split("_")[1]))
    if not paths:
        return None
    if len(paths) > FRAMES:
        paths = [paths[i * (len(paths) - 1) // (FRAMES - 1)] for i in range(FRAMES)]
    frames = [Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE) for path in paths]
    target = Path(run_dir) / "plots" / "samples.gif"
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return target


def plot_curves(run_dir, stats, title):
    """Losses, logits, gradient norms and scores over G's updates, as plots/curves.png. Returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        ("loss", {"loss_D": "D", "loss_G": "G"}, "linear"),
        ("mean logit of D", {"real_logits": "D(real)", "fake_logits": "D(fake)"}, "linear"),
        ("gradient norm", {"grad_norm_D": "D", "grad_norm_G": "G"}, "log"),
        ("Inception Score", {"inception_score": "IS"}, "linear"),
        ("FID", {"fid": "FID"}, "log"),
    ]
    panels = [panel for panel in panels if any(name in line for line in stats for name in panel[1])]
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(12.6, 3.3 * rows), squeeze=False, layout="constrained")
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
    figure.suptitle(title)
    target = Path(run_dir) / "plots" / "curves.png"
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target
