"""Pictures of scores: over the steps of a run, and samples beside the training images nearest to them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.plots import GAP, grid, pyplot

BESIDE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8}
PANELS: dict[str, tuple[str, ...]] = {
    "Inception Score": ("inception_score", "mean"),
    "FID": ("fid",),
    "KID": ("kid", "mean"),
    "precision": ("precision",),
    "recall": ("recall",),
    "density": ("density",),
    "coverage": ("coverage",),
    "modes found": ("modes", "found"),
    "KL of the modes": ("modes", "kl"),
    "samples nearer to training images\nthan unseen images are": ("memorisation", "nearer"),
}
BARS: dict[str, list[tuple[str, ...]]] = {  # the first that there is
    "Inception Score": [("inception_score", "std")],
    "FID": [("fid_interval", "std")],
    "KID": [("kid_interval", "std"), ("kid", "std")],
}


def plot_scores(target: Path, groups: Mapping[str, Sequence[dict[str, Any]]]) -> Path:
    """Scores over steps: a line for each group {its legend: its results in the order of their steps}.

    The first group's best FID is marked. A dashed line in the group's colour is what real images get, where that is
    known. results as in evaluation.json; what one lacks is left out. Returns target's path.
    """
    plt = pyplot()
    every = [scores for results in groups.values() for result in results for scores in (result, result.get("held_out"))]
    shown = {title: keys for title, keys in PANELS.items() if any(_value(scores, keys) is not None for scores in every)}
    columns = math.ceil(len(shown) / 2)
    size = 4.2 * columns, 7 + 0.22 * len(groups)
    figure, axes = plt.subplots(2, columns, figsize=size, layout="constrained", squeeze=False)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    handles: dict[str, Any] = {}
    for axis, (title, value) in zip(axes.flat, shown.items()):
        drawn = []  # what no protocol changes is drawn once
        for i, (legend, results) in enumerate(groups.items()):
            colour = colours[i % len(colours)]
            points = [(r["protocol"]["step"], _value(r, value), _bar(r, title)) for r in results]
            points = [point for point in points if point[1] is not None]
            if points and points not in drawn:
                drawn.append(points)
                line = axis.errorbar(*zip(*points), marker="o", ms=3, capsize=2, color=colour)
                handles.setdefault(legend, line)
            held_out = results[-1].get("held_out", {})
            real = _value(held_out, value)
            if real is not None and (title != "FID" or real > 0):  # that axis is logarithmic
                what = f"real {held_out.get('what', 'test images')}"
                dashed = axis.axhline(real, color=colour, linestyle="--", linewidth=1)
                if i == 0:
                    axis.annotate(what, (0.02, real), (0, 2), **BESIDE, color=colour)
                handles.setdefault(f"{what} under that protocol", dashed)
        axis.set(xlabel="step (updates of G)", ylabel=title)
        axis.grid(alpha=0.3)
        if value == ("memorisation", "nearer"):
            axis.axhline(0.5, color="grey", linestyle=":")
            axis.set_ylim(0, 1)
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    _mark_best(axes.flat[1], next(iter(groups.values())))
    figure.legend(handles.values(), handles, loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle("scores over training (bars: standard deviation over splits, subsets or resamples; star: best FID)")
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _value(scores: Any, keys: Sequence[str]) -> float | None:
    """scores[key][key]..., or None where there is none."""
    for key in keys:
        scores = scores.get(key) if isinstance(scores, dict) else None
    return scores


def _bar(result: dict[str, Any], title: str) -> float:
    return next(filter(None, (_value(result, keys) for keys in BARS.get(title, ()))), 0.0)


def _mark_best(axis: Any, results: Sequence[dict[str, Any]]) -> None:
    """Mark the lowest FID of one protocol's results."""
    best = min(results, key=lambda result: result["fid"])
    at = best["protocol"]["step"], best["fid"]
    axis.plot(*at, marker="*", ms=14, color=axis.containers[0].lines[0].get_color())
    axis.annotate(f"{best['fid']:.3g}", at, (-8, 8), textcoords="offset points", ha="right")
    axis.margins(y=0.15)
    axis.set_yscale("log")


def plot_neighbours(target: Path, samples: Tensor, training: Tensor, distances: Tensor) -> Path:
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
        middles = [GAP / 2 + (i + 0.5) * cell for i in range(max(k + 1, len(far)))]  # of columns and rows
        axis.set_xticks(middles[: k + 1], ["sample", *map(str, range(1, k + 1))])
        axis.set_yticks(middles[: len(far)], [f"{row[0]:.3g}" for row in far.tolist()])
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set(ylabel="distance to training image 1, in feature space")
        axis.set_title(title, fontsize=11)
    figure.suptitle("samples, left of the red line, and the training images nearest to each")
    figure.savefig(target, dpi=100)
    plt.close(figure)
    return target
