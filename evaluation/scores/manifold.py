"""Precision and recall (Kynkäänniemi et al. 2019, 1904.06991), density and coverage (Naeem et al. 2020, 2002.09797).

The manifold of a set of images is the union of balls, one around each, that reach to its k-th nearest neighbour in the
set. Precision is the share of samples in the manifold of the real images, recall the share of real images in that of
the samples (k = 3). Density is the mean number of real images' balls that contain a sample, divided by k; coverage is
the share of real images whose ball contains a sample. For these k = 5, and the balls exclude their border as in the
authors' code, so the real images themselves have a density of 1.

Only one block of distances is in memory at a time: with its results 0.5 GB, for any number of images. The block size
affects the last bits of distances, which matter for images on the border of a ball. It is that of torch-fidelity at its
default batch size with save_cpu_ram, so the scores are the same, including ties.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from utils.console import progress

from ..inputs.reference import Reference

BLOCK = 10_000  # images of either side: torch-fidelity's default
NEIGHBOURS = 3
FARTHEST = 5  # the farthest neighbour whose distance is kept, for density and coverage


def blockwise(
    look: Callable[[Tensor, slice], Tensor], queries: Tensor, centres: Tensor, label: str
) -> Iterator[tuple[slice, Tensor]]:
    """Call look(distances, columns) on each block of distances from queries (N, d) to centres (M, d).

    Yields (rows, result). rows: slice of the queries; columns: slice of the centres. Only one block exists at a time.
    """
    blocks = [
        (slice(i, i + BLOCK), slice(j, j + BLOCK))
        for i in range(0, len(queries), BLOCK)
        for j in range(0, len(centres), BLOCK)
    ]
    for rows, columns in progress(blocks, label, unit="block"):
        yield rows, look(torch.cdist(queries[rows], centres[columns]), columns)


def radii(features: Tensor, label: str) -> Tensor:
    """The radii of the balls around images with features (N, d): (N, 6), column k reaching the k-th neighbour.

    Column 0 is the distance of an image to itself: rounding can make it larger than 0, so it is the smallest one.
    """
    k = min(FARTHEST + 1, len(features))

    def look(apart: Tensor, columns: slice) -> Tensor:
        return apart.topk(min(k, apart.size(1)), largest=False).values

    found = features.new_full((len(features), k), torch.inf)
    for rows, candidates in blockwise(look, features, features, label):
        found[rows] = torch.cat([found[rows], candidates], dim=1).topk(k, largest=False).values
    return found


def radii_of(reference: Reference) -> Tensor:
    """The radii() of a Reference's images, cached with it. Their cost is quadratic in the number."""
    facts, what = {"neighbours": FARTHEST}, "the distances between real images are"
    return reference.once("radii", facts, lambda: radii(reference.features, "neighbours of real images"), what)


def held(queries: Tensor, centres: Tensor, reach: Tensor, label: str) -> Tensor:
    """Count the balls with centres (M, d) and radii (M,) that contain each query (N, d), borders included: (N,)."""

    def look(apart: Tensor, columns: slice) -> Tensor:
        return torch.from_numpy((apart <= reach[columns]).numpy().sum(1))  # torch would widen it all to int64 first

    counts = torch.zeros(len(queries), dtype=torch.long)
    for rows, more in blockwise(look, queries, centres, label):
        counts[rows] += more
    return counts


def scores(samples: Tensor, real: Tensor, of_samples: Tensor, of_real: Tensor) -> dict[str, float]:
    """The four scores of samples' features (N, d) against real ones (M, d), given the radii() of both."""
    near, far = of_real[:, NEIGHBOURS], of_real[:, FARTHEST]
    apart = real.new_full((len(real),), torch.inf)  # from each real image to the nearest sample

    def look(block: Tensor, columns: slice) -> Tensor:
        apart[columns] = torch.minimum(apart[columns], block.amin(0))
        within = [(block <= near[columns]).numpy(), (block < far[columns]).numpy()]
        return torch.from_numpy(np.stack([balls.sum(1) for balls in within]))  # torch would widen it all to int64 first

    counts = torch.zeros(2, len(samples), dtype=torch.long)  # balls that contain each sample, for k = 3 and k = 5
    for rows, more in blockwise(look, samples, real, "precision, density, coverage"):
        counts[:, rows] += more
    return {
        "precision": (counts[0] > 0).float().mean().item(),
        "recall": (held(real, samples, of_samples[:, NEIGHBOURS], "recall") > 0).float().mean().item(),
        "density": (counts[1].double().mean() / FARTHEST).item(),
        "coverage": (apart < far).double().mean().item(),
    }
