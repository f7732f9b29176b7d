"""The figures of a study's samples and of the time of its steps (after Miyato et al. 2018, figure 10)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from utils.plots import pyplot, read_grid

from .drawing import COLOURS, HERO, WIDTH, Figure, extremes, name_of, name_rows, number, panels, shown_setting
from .grid import Study
from .results import Result, interval, tally

SAMPLES, OVERVIEW = 36, 9  # samples of a method's grid, and of a cell in the overview


def grids_of(result: Result) -> dict[int, Path]:
    """{step: the path of a run's grid of samples}, in the order of the steps."""
    paths = (result.run.run_dir / "samples").glob("step_*.png")
    return dict(sorted((int(path.stem.split("_")[1]), path) for path in paths))


def images_of(result: Result, count: int, path: Path | None = None) -> np.ndarray | None:
    """The first samples of a run's grid, (n, H, W[, C]) uint8, its last one by default; None where none can be read."""
    path = path or next(reversed(grids_of(result).values()), None)
    try:
        conditional = result.run.config.conditional != "none"
        return read_grid(path, named=conditional)[:count] if path else None
    except OSError:  # cut off
        return None


def _tile(images: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Images (n, H, W[, C]) in rows, white between them."""
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:]), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def show(axis: Axes, result: Result | None, count: int, columns: int, path: Path | None = None) -> None:
    """Draw the first samples of a run's grid, its last one by default, in so many columns."""
    images = images_of(result, count, path) if result else None
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if images is None:
        axis.text(0.5, 0.5, "no samples", ha="center", va="center", fontsize=8, transform=axis.transAxes)
    else:
        gap = max(1, images.shape[1] // 8)
        axis.imshow(_tile(images, columns, gap), cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def samples(study: Study, results: Sequence[Result]) -> Figure:
    """A grid of samples a method, drawn from the same z, of the first seed."""
    chosen = {r.run.method: r for r in results if r.run.seed == study.seeds[0]}
    figure, axes = panels(len(study.methods), 3, 2.45)
    for axis, method in zip(axes, study.methods):
        result = chosen.get(method)
        show(axis, result, SAMPLES, 6)
        score = f"\nFID {number(result.last['fid'])}" if result and result.last else ""
        axis.set_title(f"{name_of(method)}{score}", fontsize=10, fontweight="bold" if method == HERO else "normal")
    title = f"Samples of the same z, setting {shown_setting(study)}, seed {study.seeds[0]}"
    known = {method: result.last["fid"] for method, result in chosen.items() if result.last}
    words = extremes(known, "highest for", "lowest for") if known else "none yet"
    text = f"Judge by eye what the scores say. FID of these runs: {words}. No sample was selected."
    return Figure("samples", title, figure, text)


def overview(study: Study, results: Sequence[Result]) -> Figure:
    """Nine samples of each method in each setting, drawn from the same z, of the first seed."""
    chosen = {(r.run.method, r.run.setting): r for r in results if r.run.seed == study.seeds[0]}
    size = (WIDTH, 0.93 * len(study.methods) + 0.4)
    shape = (len(study.methods), len(study.settings))
    figure, axes = pyplot().subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for row, method in zip(axes, study.methods):
        for axis, setting in zip(row, study.settings):
            show(axis, chosen.get((method, setting)), OVERVIEW, 3)
        words = name_of(method).replace(" (", "\n(").replace(" + ", " +\n")
        row[0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9)
    for axis, setting in zip(axes[0], study.settings):
        axis.set_title(setting, fontsize=10)
    title = f"Samples in every setting, seed {study.seeds[0]}"
    return Figure("samples_by_setting", title, figure, _on_overview(results))


def _on_overview(results: Sequence[Result]) -> str:
    """How many runs collapsed, and how many diverged."""
    finished = [result for result in results if result.finished]
    gone = [f"of {name_of(result.run.method)}" for result in finished if result.collapsed]
    diverged = [f"of {name_of(r.run.method)}" for r in results if r.outcome.state == "diverged"]
    text = f"Of {len(finished)} runs that are finished, {len(gone)} collapsed to nearly one image"
    text += f": {tally(gone)}. " if gone else ". "
    return text + (f"Diverged: {tally(diverged)}." if diverged else "None diverged to NaN or infinity.")


def seconds(study: Study, results: Sequence[Result]) -> Figure:
    """The measured time of a step of G, with its n_dis updates of D, by method."""
    timed = [(r.run.config.n_dis, r.run.method, r.seconds_per_step) for r in results if r.seconds_per_step]
    counts = sorted({n_dis for n_dis, *_ in timed})
    figure, axes = panels(max(1, len(counts)), 2, 0.24 * len(study.methods) + 1, sharey=True)
    found: dict[int, dict[str, float]] = {}
    for axis, n_dis in zip(axes, counts):
        for row, method in enumerate(study.methods):
            spread = interval([s for n, m, s in timed if (n, m) == (n_dis, method)])
            if spread:
                found.setdefault(n_dis, {})[method] = spread.mean
                axis.barh(row, 1000 * spread.mean, color=COLOURS[method], alpha=0.8)
                axis.plot([1000 * spread.low, 1000 * spread.high], [row, row], color="black", linewidth=1.2)
        axis.set_title(f"n_dis {n_dis}", fontsize=10)
    name_rows(axes[0], study.methods)
    figure.supxlabel("milliseconds per step of G", fontsize=10)
    return Figure("seconds_per_step", "Time of a step of G", figure, _on_seconds(results, found))


def _on_seconds(results: Sequence[Result], found: dict[int, dict[str, float]]) -> str:
    if not found:
        return "No step has been timed yet."
    n_dis = max(found)
    own = found[n_dis]
    words = extremes(own, "longest for", "shortest for", lambda value: f"{1000 * value:.1f} ms")
    text = f"With n_dis {n_dis}: {words}."
    if "none" in own:
        ratios = [f"{name_of(m)} {own[m] / own['none']:.2f}" for m in (HERO, "wgan_gp", "batch") if m in own]
        text += f" In units of no normalization: {', '.join(ratios)}." if ratios else ""
    devices, threads = ({str(e.get(key)) for r in results for e in r.outcome.record} for key in ("device", "threads"))
    text += " Measured in the runs themselves, beside which others may have run, without scoring"
    if devices:
        text += f", on {' and '.join(sorted(devices))}, {' or '.join(sorted(threads))} thread(s) each"
    return text + ("." if len(devices) < 2 else "; several devices: compare with care.")
