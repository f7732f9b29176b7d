"""Uncertainty of scores: bootstrap intervals, and FID extrapolated to infinitely many samples.

Both need the FID of many weightings of the same samples. In its term tr((S1 S2)^(1/2)), the real covariance S2 = R R^T
is fixed. So the samples are multiplied by R once; the term is the sum of the square roots of the eigenvalues of
R^T S1 R, the covariance of the products: symmetric, no larger than the rank of either side.
"""

from typing import Any

import numpy as np
from torch import Tensor

from utils.console import progress
from utils.errors import UserError

from ..inputs.reference import Reference
from . import metrics

LEVEL = 0.95  # confidence level of an interval
INFINITY_POINTS, INFINITY_SMALLEST = 15, 5000  # sample counts of FID infinity (Chong and Forsyth 2020, section 4)
INFINITY_RATIO = 20  # samples per dimension that it needs; see benchmarks/error_bars.py
CHUNK = 4096  # samples in float64 at once


def fids(features: Tensor, reference: Reference, weights: np.ndarray, label: str) -> np.ndarray:
    """The FIDs (R,) of samples' features (N, d) for each of R weightings, weights (R, N), in float64."""
    mu, trace, root = reference.statistics["mu"], np.trace(reference.statistics["sigma"]), reference.root
    mean = sum(part.double().sum(0) for part in features.split(CHUNK)).numpy() / len(features)
    # Relative to the unweighted mean: the offsets of the weighted means, and the samples' squared distances.
    moves, squares = np.zeros((len(weights), len(mean))), np.empty(len(features))
    products = np.empty((len(features), root.shape[1]), np.float32)  # rounded relative to the size of each
    for start in progress(range(0, len(features), CHUNK), f"{label}: products", unit="block"):
        rows = slice(start, start + CHUNK)
        part = features[rows].double().numpy() - mean
        moves += weights[:, rows].astype(float) @ part
        squares[rows] = (part * part).sum(1)
        products[rows] = part @ root
    moves /= weights.sum(1, keepdims=True)

    scores = []
    for counts, moved in zip(progress(weights, label, unit="resample"), moves):
        total = counts.sum(dtype=float)
        own = (counts @ squares - total * moved @ moved) / (total - 1)
        values = np.linalg.eigvalsh(_scatter(products, counts, moved @ root) / (total - 1))
        apart = mean + moved - mu
        scores.append(apart @ apart + own + trace - 2 * np.sqrt(values.clip(0)).sum())
    return np.array(scores)


def _scatter(products: np.ndarray, counts: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """A symmetric matrix with the nonzero eigenvalues of sum_i counts_i (z_i - moved) (z_i - moved)^T, z_i: a row (r,).

    For few samples it is the Gram matrix, which is smaller and has the same eigenvalues except for zeros.
    """
    chosen = np.flatnonzero(counts)
    if len(chosen) < products.shape[1]:
        few = (products[chosen] - moved) * np.sqrt(counts[chosen, None], dtype=float)
        return few @ few.T
    total = -counts.sum(dtype=float) * np.outer(moved, moved)
    for start in range(0, len(chosen), CHUNK):
        rows = chosen[start : start + CHUNK]
        part = products[rows] * np.sqrt(counts[rows, None], dtype=float)
        total += part.T @ part
    return total


def resampled(count: int, resamples: int) -> np.ndarray:
    """How often each of `count` samples is drawn in each resample: (resamples, count), from a fixed seed."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, count, count) for _ in range(resamples))
    return np.stack([np.bincount(indices, minlength=count).astype(np.int16) for indices in drawn])


def interval(score: float, scores: np.ndarray) -> dict[str, Any]:
    """The 95 % interval of a score over samples of the same generator, from R resamples' scores.

    A resample repeats samples, which raises FID and KID by about their bias. So the interval is shifted by the score
    minus the mean over resamples. On Gaussians its std was 0.95 to 1.75 times that between independent sets of samples
    (benchmarks/error_bars.py): rather too wide. It shows the spread, but neither the bias nor the differences between
    runs with other seeds.
    """
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + score - scores.mean()
    std = float(scores.std(ddof=1))
    return {"low": float(low), "high": float(high), "level": LEVEL, "std": std, "resamples": len(scores)}


def fid_interval(score: float, features: Tensor, reference: Reference, resamples: int) -> dict[str, Any]:
    """The bootstrap interval of the FID of samples' features (N, d). Only samples are resampled."""
    weights = resampled(len(features), resamples)
    return interval(score, fids(features, reference, weights, "bootstrap of the FID"))


def kid_interval(score: float, features: Tensor, reference: Reference, resamples: int) -> dict[str, Any]:
    """The bootstrap interval of the KID of samples' features (N, d), with fixed reference and subsets.

    A resample gives each sample the same count in all subsets that contain it. So a subset's kernels serve all
    resamples, and KID varies as it would with other samples in the same places and subsets.
    """
    weights = resampled(len(features), resamples)
    return interval(score, metrics.kernel_sums(features, reference, weights, "bootstrap of the KID").means())


def check_infinity(num_samples: int, dim: int) -> None:
    """Check the number of samples. Raises UserError if FID would not be linear in 1/N with `dim` dimensions."""
    if num_samples < INFINITY_RATIO * dim:
        raise UserError(
            f"FID infinity needs at least {INFINITY_RATIO * dim:,} samples with features of {dim:,} dimensions, not "
            f"{num_samples:,}"
        )


def fid_infinity(features: Tensor, reference: Reference) -> dict[str, Any]:
    """Extrapolate FID to infinitely many samples: {value, std, sizes} (Chong and Forsyth 2020).

    The bias of FID is proportional to 1/N. A line is fitted to the FIDs of 15 random subsets of the samples, from 5,000
    (or a tenth) to all; its intercept at 1/N = 0 is the value. std is that of the intercept, smaller than that between
    sets of samples. The bias by the number of real images remains. Raises UserError if there are too few samples.
    """
    from scipy import stats

    count, dim = features.shape
    check_infinity(count, dim)
    sizes = np.linspace(min(INFINITY_SMALLEST, count // 10), count, INFINITY_POINTS).astype(int)
    rng = np.random.default_rng(0)
    weights = np.zeros((INFINITY_POINTS, count), np.int16)
    for row, size in zip(weights, sizes):
        row[rng.choice(count, size, replace=False)] = 1
    line = stats.linregress(1 / sizes, fids(features, reference, weights, "FID infinity"))
    return {"value": float(line.intercept), "std": float(line.intercept_stderr), "sizes": sizes.tolist()}
