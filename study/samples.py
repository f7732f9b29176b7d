"""Figures of a study's samples, all from the same z: by method, by setting, over training."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.plots import read_grid

from .drawing import Figure, name_of, number, panels, pictures, shown_setting, weight_of
from .grid import Study
from .results import Result

SAMPLES, OVERVIEW = 36, 9  # samples of a method's grid, and of a cell in the overview
FRAMES, SEEN = 7, 4  # steps of the film, and samples of each


def grids_of(result: Result) -> dict[int, Path]:
    """{step: path of a run's sample grid}, ordered by step."""
    paths = (result.run.run_dir / "samples").glob("step_*.png")
    return dict(sorted((int(path.stem.split("_")[1]), path) for path in paths))


def images_of(result: Result, count: int, path: Path | None = None) -> np.ndarray | None:
    """The first samples (n, H, W[, C]) uint8 of a grid, by default the last; None if it cannot be read."""
    path = path or next(reversed(grids_of(result).values()), None)
    with contextlib.suppress(OSError):  # the file is incomplete
        return read_grid(path, named=result.run.config.conditional != "none")[:count] if path else None
    return None


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images (n, H, W[, C]) in rows, with white gaps."""
    gap = max(1, images.shape[1] // 8)
    room = [(0, -len(images) % columns), (0, gap), (0, gap), *[(0, 0)] * (images.ndim - 3)]
    padded = np.pad(images, room, constant_values=255)
    rows = [np.concatenate(list(padded[i : i + columns]), axis=1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows)[:-gap, :-gap]


def _show(axis: Any, result: Result | None, count: int, columns: int, path: Path | None = None) -> None:
    """Draw the first samples of a run's grid in `columns` columns. path: by default the last grid."""
    images = images_of(result, count, path) if result else None
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if images is None:
        axis.text(0.5, 0.5, "no samples", ha="center", va="center", fontsize=8, transform=axis.transAxes)
    else:
        axis.imshow(_tile(images, columns), cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def samples(study: Study, results: Sequence[Result]) -> Figure:
    """A grid of samples for each method, with the first seed."""
    chosen = {r.run.method: r for r in results if r.run.seed == study.seeds[0]}
    figure, axes = panels(len(study.methods), 3, 2.45)
    for axis, method in zip(axes, study.methods):
        result = chosen.get(method)
        _show(axis, result, SAMPLES, 6)
        score = f"\nFID {number(result.last['fid'])}" if result and result.last else ""
        axis.set_title(f"{name_of(method)}{score}", fontsize=10, fontweight=weight_of(method))
    title = f"Samples of the same z, setting {shown_setting(study)}, seed {study.seeds[0]}"
    return Figure("samples", title, figure)


def overview(study: Study, results: Sequence[Result]) -> Figure:
    """Nine samples of each method in each setting, with the first seed."""
    chosen = {(r.run.method, r.run.setting): r for r in results if r.run.seed == study.seeds[0]}
    names = [name_of(method).replace(" (", "\n(").replace(" + ", " +\n") for method in study.methods]
    figure, axes = pictures(names, study.settings)
    for row, method in zip(axes, study.methods):
        for axis, setting in zip(row, study.settings):
            _show(axis, chosen.get((method, setting)), OVERVIEW, 3)
    title = f"Samples in every setting, seed {study.seeds[0]}"
    return Figure("samples_by_setting", title, figure)


def film(study: Study, results: Sequence[Result]) -> Figure:
    """Samples over training with the first seed: one row per method, one column per step."""
    setting, seed = shown_setting(study), study.seeds[0]
    chosen = {r.run.method: r for r in results if (r.run.setting, r.run.seed) == (setting, seed)}
    grids = {method: grids_of(result) for method, result in chosen.items()}
    steps = sorted({step for paths in grids.values() for step in paths})
    if len(steps) > FRAMES:
        steps = [steps[i * (len(steps) - 1) // (FRAMES - 1)] for i in range(FRAMES)]
    figure, axes = pictures([*map(name_of, study.methods)], [f"step {step:,}" for step in steps] or [""])
    for row, method in zip(axes, study.methods):
        for axis, step in zip(row, steps or [0]):
            path = grids.get(method, {}).get(step)
            _show(axis, chosen.get(method) if path else None, SEEN, 2, path)
    title = f"The same z over training, setting {setting}, seed {seed}"
    return Figure("film", title, figure)
