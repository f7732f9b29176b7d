"""Pictures of scores: over the steps of a run, and samples beside the training images nearest to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.plots import GAP, grid, pyplot


def plot_scores(target: Path, results: Sequence[dict[str, Any]], label: Callable[[dict[str, Any]], str]) -> Path:
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
    names = dict.fromkeys(result["protocol"]["name"] for result in results)
    groups = [[result for result in results if result["protocol"]["name"] == name] for name in names]
    for axis, (title, value, error) in zip(axes.flat, panels):
        for own in groups[: 1 if error is None else None]:  # what no protocol changes is drawn once
            steps = [result["protocol"]["step"] for result in own]
            bars = [error(result) for result in own] if error else None
            axis.errorbar(steps, list(map(value, own)), bars, marker="o", ms=3, capsize=2)
        axis.set(xlabel="step (updates of G)", ylabel=title)
        axis.grid(alpha=0.3)
    _mark_best(axes.flat[1], groups[0])
    axes.flat[-1].axhline(0.5, color="grey", linestyle=":")
    axes.flat[-1].set_ylim(0, 1)
    handles = axes.flat[0].containers
    legends = [label(own[0]["protocol"]) for own in groups]
    figure.legend(handles, legends, loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle("scores over training (bars: standard deviation over splits, subsets or resamples; star: best FID)")
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _mark_best(axis: Any, results: Sequence[dict[str, Any]]) -> None:
    """Mark the lowest FID of one protocol's results."""
    best = min(results, key=lambda result: result["fid"])
    at = best["protocol"]["step"], best["fid"]
    axis.plot(*at, marker="*", ms=14, color=axis.lines[0].get_color())
    axis.annotate(f"{best['fid']:.3g}", at, (-8, 8), textcoords="offset points", ha="right")
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
