"""Pictures: sample grids, their animation, curves and latent interpolations. Images are (N, C, H, W) uint8."""

import math
from pathlib import Path

import numpy as np
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


def read_grid(path, columns=10):
    """The images of a picture that grid() made with so many columns, as enlarged there: (n, H, W) or (n, H, W, 3)."""
    array = np.asarray(Image.open(path))
    side = (array.shape[1] - GAP) // columns
    starts = (
        (GAP + row, GAP + column)
        for row in range(0, len(array) - GAP, side)
        for column in range(0, columns * side, side)
    )
    return np.stack([array[top : top + side - GAP, left : left + side - GAP] for top, left in starts])


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


def plot_scores(target, results, label):
    """Scores over steps: a line for each protocol, whose label(protocol) is its legend. Returns target's path.

    The best FID is marked. results as in evaluation.json, with any number of protocols and steps.
    """
    plt = pyplot()
    panels = [
        ("Inception Score", lambda r: r["inception_score"]["mean"], lambda r: r["inception_score"]["std"]),
        ("FID", lambda r: r["fid"], lambda r: r.get("fid_interval", {}).get("std", 0)),
        ("KID", lambda r: r["kid"]["mean"], lambda r: r.get("kid_interval", r["kid"])["std"]),
        ("precision", lambda r: r["precision"], lambda r: 0),
        ("recall", lambda r: r["recall"], lambda r: 0),
        ("samples nearer to training images\nthan unseen images are", lambda r: r["memorisation"]["nearer"], None),
    ]
    figure, axes = plt.subplots(2, 3, figsize=(12.6, 7.2), layout="constrained")
    names = list(dict.fromkeys(result["protocol"]["name"] for result in results))
    for axis, (title, value, error) in zip(axes.flat, panels):
        for name in names[: 1 if error is None else None]:  # what no protocol changes is drawn once
            own = [result for result in results if result["protocol"]["name"] == name]
            steps = [result["protocol"]["step"] for result in own]
            axis.errorbar(
                steps, list(map(value, own)), [error(r) for r in own] if error else None, marker="o", ms=3, capsize=2
            )
        axis.set(xlabel="step (updates of G)", ylabel=title)
        axis.grid(alpha=0.3)
    _mark_best(axes.flat[1], [result for result in results if result["protocol"]["name"] == names[0]])
    axes.flat[-1].axhline(0.5, color="grey", linestyle=":")
    axes.flat[-1].set_ylim(0, 1)
    handles = axes.flat[0].containers
    legends = [label(next(r["protocol"] for r in results if r["protocol"]["name"] == name)) for name in names]
    figure.legend(handles, legends, loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle("scores over training (bars: standard deviation over splits, subsets or resamples; star: best FID)")
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _mark_best(axis, results):
    """Mark the lowest FID of one protocol's results."""
    best = min(results, key=lambda result: result["fid"])
    at = best["protocol"]["step"], best["fid"]
    axis.plot(*at, marker="*", ms=14, color=axis.lines[0].get_color())
    axis.annotate(f"{best['fid']:.3g}", at, (-8, 8), textcoords="offset points", ha="right")
    axis.set_yscale("log")


def plot_neighbours(target, samples, training, distances):
    """Samples (n, C, H, W), and right of each its nearest training images (n, k, C, H, W) at distances (n, k).

    The first half of the samples on the left, the other half on the right, as in diagnostics.Neighbours. Returns
    target's path.
    """
    plt = pyplot()
    k = distances.size(1)
    titles = ("the samples nearest to a training image", "any samples, not chosen")
    figure, axes = plt.subplots(1, 2, figsize=(11, 7.4), layout="constrained")
    parts = [part.chunk(2) for part in (samples, training, distances)]
    for axis, title, shown, beside, far in zip(axes, titles, *parts):
        picture = grid(torch.cat([shown.unsqueeze(1), beside], dim=1).flatten(0, 1), columns=k + 1)
        cell = (picture.width - GAP) / (k + 1)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.axvline(GAP / 2 + cell, color="tab:red", linewidth=2)
        axis.set_xticks([GAP / 2 + (i + 0.5) * cell for i in range(k + 1)], ["sample", *map(str, range(1, k + 1))])
        axis.set_yticks(
            [GAP / 2 + (i + 0.5) * cell for i in range(len(far))], [f"{row[0]:.3g}" for row in far.tolist()]
        )
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set(ylabel="distance to training image 1, in feature space")
        axis.set_title(title, fontsize=11)
    figure.suptitle("samples, left of the red line, and the training images nearest to each")
    figure.savefig(target, dpi=100)
    plt.close(figure)
    return target


def pyplot():
    """matplotlib.pyplot, imported late and drawing into files alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
