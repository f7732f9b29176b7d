"""Plots of results: scores over steps, and samples next to their nearest training images."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.plots import GAP, grid, pyplot, scaled

from ..scores.registry import SCORES, scores_of
from .kept import real_name

BESIDE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8}
DRAWN = [*scores_of("images", "modes").values(), SCORES["nearer"]]
TITLE = 32  # characters per line of an axis label


def plot_scores(target: Path, groups: Mapping[str, Sequence[dict[str, Any]]]) -> Path:
    """Plot scores over steps, with a line for each group {legend: results, as in evaluation.json, sorted by step}.

    The best FID of the first group is marked. A dashed line in a group's colour shows the scores of real images, if
    known. Missing scores are left out. Returns the path.
    """
    plt = pyplot()
    every = [result for results in groups.values() for result in results]
    every += [result.get("held_out", {}) for result in every]
    shown = [score for score in DRAWN if any(score.value(scores) is not None for scores in every)]
    columns = math.ceil(len(shown) / 2)
    size = 4.2 * columns, 7 + 0.22 * len(groups)
    figure, axes = plt.subplots(2, columns, figsize=size, layout="constrained", squeeze=False)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    handles: dict[str, Any] = {}
    for axis, score in zip(axes.flat, shown):
        drawn = []  # scores that are the same under all protocols are drawn once
        for i, (legend, results) in enumerate(groups.items()):
            colour = colours[i % len(colours)]
            points = [(r["protocol"]["step"], score.value(r), score.bar(r)) for r in results]
            points = [point for point in points if point[1] is not None]
            if points and points not in drawn:
                drawn.append(points)
                line = axis.errorbar(*zip(*points), marker="o", ms=3, capsize=2, color=colour)
                handles.setdefault(legend, line)
            held_out = results[-1].get("held_out", {})
            real = score.value(held_out)
            if real is not None and (not score.log or real > 0):
                what = real_name(held_out)
                dashed = axis.axhline(real, color=colour, linestyle="--", linewidth=1)
                if i == 0:
                    axis.annotate(what, (0.02, real), (0, 2), **BESIDE, color=colour)
                handles.setdefault(f"{what} under that protocol", dashed)
        axis.set(xlabel="step (updates of G)", ylabel=textwrap.fill(f"{score.heading} ({score.direction})", TITLE))
        axis.grid(alpha=0.3)
        if score.log:
            scaled(axis, "log")
        if isinstance(score.better, float):
            axis.axhline(score.better, color="grey", linestyle=":")
            axis.set_ylim(0, 1)
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    _mark_best(axes.flat[1], next(iter(groups.values())))
    figure.legend(handles.values(), handles, loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle("scores over training (bars: standard deviation over splits, subsets or resamples; star: best FID)")
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _mark_best(axis: Any, results: Sequence[dict[str, Any]]) -> None:
    """Mark the lowest FID of one protocol's results."""
    best = min(results, key=lambda result: result["fid"])
    at = best["protocol"]["step"], best["fid"]
    axis.plot(*at, marker="*", ms=14, color=axis.containers[0].lines[0].get_color())
    axis.annotate(f"{best['fid']:.3g}", at, (-8, 8), textcoords="offset points", ha="right")
    axis.margins(y=0.15)


def plot_neighbours(target: Path, samples: Tensor, training: Tensor, distances: Tensor) -> Path:
    """Draw samples (n, C, H, W), each with its nearest training images (n, k, C, H, W) at distances (n, k).

    The two halves of the samples, as in diagnostics.Neighbours, are drawn one above the other, so that the picture
    fits on a phone. Returns the path.
    """
    plt = pyplot()
    k = distances.size(1)
    titles = ("the samples nearest to a training image", "any samples, not chosen")
    figure, axes = plt.subplots(2, 1, figsize=(4.6, 11.4), layout="constrained")
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
    figure.suptitle("samples (left of the red line) and\nthe nearest training images of each", fontsize=11)
    figure.savefig(target, dpi=140)
    plt.close(figure)
    return target
