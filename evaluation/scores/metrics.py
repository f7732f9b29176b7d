"""Scores on features: Inception Score, FID, KID, precision and recall, density and coverage.

Every formula is torch-fidelity's. The libraries are imported in the functions that use them, because their imports
take two seconds, which a training should not wait for.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from utils.console import announced, progress

from ..inputs.reference import Reference, fid_statistics
from . import manifold
from .registry import SCORES

IS_SPLITS = 10
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
KID_SEED = 2020  # seed of the subsets: torch-fidelity's default


def inception_score(logits: Tensor, shuffle: bool = True) -> dict[str, float]:
    """The Inception Score of the samples' logits (N, k): {mean, std} over 10 splits."""
    from torch_fidelity import metric_isc

    with announced("computing the Inception Score"):
        found = metric_isc.isc_features_to_metric(logits, splits=IS_SPLITS, shuffle=shuffle)
    return {"mean": found[metric_isc.KEY_METRIC_ISC_MEAN], "std": found[metric_isc.KEY_METRIC_ISC_STD]}


def fid(features: Tensor, reference: Reference) -> float:
    """The FID of samples' features (N, d) against a Reference."""
    from torch_fidelity import metric_fid

    statistics = fid_statistics(features)
    with announced("computing the FID"):
        found = metric_fid.fid_statistics_to_metric(statistics, reference.statistics, verbose=False)
    return found[metric_fid.KEY_METRIC_FID]


def against(features: Tensor, reference: Reference, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Call each function of the registry on features (N, d) and a Reference: {name: its result}."""
    return {
        name: score.function()(features, reference)
        for name, score in SCORES.items()
        if score.by and name not in left_out
    }


def neighbour_scores(features: Tensor, reference: Reference, radii: Tensor | None = None) -> dict[str, float]:
    """{precision, recall, density, coverage} of features (N, d). radii: their manifold.radii(), if known."""
    if radii is None:
        radii = manifold.radii(features, "neighbours of samples")
    return manifold.scores(features, reference.features, radii, manifold.radii_of(reference))


class KernelSums(NamedTuple):
    """Sums of kernels for each weighting and subset of KID, and their counts: (R, subsets)."""

    within: np.ndarray  # between different samples
    pairs: np.ndarray
    across: np.ndarray  # between samples and real images
    couples: np.ndarray
    real: np.ndarray  # (subsets,), the mean between different real images

    def means(self) -> np.ndarray:
        """KID for each weighting (R,): the mean over subsets, weighted by their numbers of kernels."""
        parts = (self.within, self.pairs, self.across, self.couples)
        within, pairs, across, couples = (part.sum(1) for part in parts)
        return within / pairs + self.real.mean() - 2 * across / couples


def kid_subset_size(num_samples: int, num_real: int) -> int:
    return min(KID_SUBSET_SIZE, num_samples, num_real)


def kid_subsets(num_samples: int, num_real: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the indices of samples and real images in each subset, drawn like torch-fidelity."""
    rng, size = np.random.RandomState(KID_SEED), kid_subset_size(num_samples, num_real)
    for _ in range(KID_SUBSETS):
        yield rng.choice(num_samples, size, replace=False), rng.choice(num_real, size, replace=False)


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cubic kernel (x.y / d + 1)^3 of Binkowski et al. 2018: (N, d), (M, d) -> (N, M)."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base


def kernel_sums(features: Tensor, reference: Reference, weights: np.ndarray, label: str = "KID") -> KernelSums:
    """The KernelSums of samples' features (N, d) for each of R weightings, weights (R, N), in float64.

    A sample that counts twice is not paired with itself, which in a subset would be far too frequent.
    """
    counts = len(features), len(reference.features)
    place = f"kernels_{KID_SUBSETS}_{len(features)}"
    known = reference.known.get(place)
    found = []
    for number, (chosen, of_real) in enumerate(progress(kid_subsets(*counts), label, KID_SUBSETS, unit="subset")):
        x, y = (part[rows].double().numpy() for part, rows in ((features, chosen), (reference.features, of_real)))
        w, own = weights[:, chosen].astype(float), kernel(x, x)
        size, real = w.sum(1), known[number] if known is not None else _mean_between(kernel(y, y))
        within = ((w @ own) * w).sum(1) - w**2 @ own.diagonal()
        found.append((within, size**2 - (w**2).sum(1), w @ kernel(x, y).sum(1), size * len(y), np.asarray(real)))
    sums = KernelSums(*(np.stack(parts, axis=-1) for parts in zip(*found)))
    reference.known[place] = sums.real
    return sums


def _mean_between(kernels: np.ndarray) -> np.ndarray:
    """The mean of kernels (N, N) off the diagonal."""
    size = len(kernels)
    return (kernels.sum() - kernels.trace()) / (size * (size - 1))


def kid(features: Tensor, reference: Reference) -> dict[str, float]:
    """The KID: {mean, std} over 100 subsets of 1,000 images, or of all if there are fewer.

    The subsets are those of torch-fidelity, which sums in float32. So on large features the last digits differ (by up
    to 8e-4 of the score); on small ones they agree to 1e-6.
    """
    sums = kernel_sums(features, reference, np.ones((1, len(features))))
    scores = (sums.within / sums.pairs + sums.real - 2 * sums.across / sums.couples)[0]
    return {"mean": float(scores.mean()), "std": float(scores.std())}
