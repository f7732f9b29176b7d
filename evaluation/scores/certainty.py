"""How sure a score is: intervals by the bootstrap, and FID extrapolated to infinitely many samples.

Both need the FID of many weightings of the same samples. Of its term tr((S1 S2)^(1/2)), the real covariance S2 = R R^T
stays. So samples are multiplied by R once; the term is the sum of the roots of the eigenvalues of R^T S1 R, which is
the covariance of the products: symmetric, and no larger than the ranks of both sides.
"""

from typing import Any

import numpy as np
from torch import Tensor

from utils.console import progress
from utils.errors import UserError

from ..inputs.reference import Reference
from . import metrics

LEVEL = 0.95  # of an interval
INFINITY_POINTS, INFINITY_SMALLEST = 15, 5000  # sample counts of FID infinity (Chong and Forsyth 2020, section 4)
INFINITY_RATIO = 20  # samples for each dimension that it needs; see benchmarks/error_bars.py
CHUNK = 4096  # samples that are held in float64 at once


def fids(features: Tensor, reference: Reference, weights: np.ndarray, label: str) -> np.ndarray:
    """The FID of samples' features (N, d), each counted as often as weights (R, N) say: (R,), in float64."""
    mu, trace, root = reference.statistics["mu"], np.trace(reference.statistics["sigma"]), reference.root
    mean = sum(part.double().sum(0) for part in features.split(CHUNK)).numpy() / len(features)
    # About the unweighted mean: the way from there to each weighted one, and the samples' squared distances.
    moves, squares = np.zeros((len(weights), len(mean))), np.empty(len(features))
    products = np.empty((len(features), root.shape[1]), np.float32)  # each is rounded in proportion to its own size
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
    """A symmetric matrix with the eigenvalues of sum of counts (z - moved) (z - moved)^T over products z (N, r).

    They are those of the Gram matrix too, which is smaller for few samples, and has no others that are 0.
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
    """How often each of `count` samples is drawn in each resample: (resamples, count), the same numbers each time."""
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, count, count) for _ in range(resamples))
    return np.stack([np.bincount(indices, minlength=count).astype(np.int16) for indices in drawn])


def interval(score: float, scores: np.ndarray) -> dict[str, Any]:
    """The interval in which a score lies for other samples of the same generator, by those of resamples (R,).

    A resample repeats samples, which moves FID and KID up by about as much as their bias, so the 95 % interval is
    centred on the score itself. On Gaussians its std was 0.95 to 1.75 times that between independent sets of samples
    (benchmarks/error_bars.py): rather too wide. It tells the spread, not the bias, and nothing of how runs with other
    seeds differ.
    """
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + score - scores.mean()
    std = float(scores.std(ddof=1))
    return {"low": float(low), "high": float(high), "level": LEVEL, "std": std, "resamples": len(scores)}


def fid_interval(score: float, features: Tensor, reference: Reference, resamples: int) -> dict[str, Any]:
    """The interval of the FID of samples' features (N, d), by the bootstrap; the reference stays."""
    weights = resampled(len(features), resamples)
    return interval(score, fids(features, reference, weights, "bootstrap of the FID"))


def kid_interval(score: float, features: Tensor, reference: Reference, resamples: int) -> dict[str, Any]:
    """The interval of the KID of samples' features (N, d), by the bootstrap; reference and subsets stay.

    A resample gives each sample its count in all subsets that hold it. So a subset's kernels serve all resamples, and
    KID varies as that of other samples in the same places would, the choice of the subsets included.
    """
    weights = resampled(len(features), resamples)
    return interval(score, metrics.kernel_sums(features, reference, weights, "bootstrap of the KID").means())


def check_infinity(num_samples: int, dim: int) -> None:
    """Raise UserError where features of dim dimensions leave too few samples: FID is not linear in 1/N there."""
    if num_samples < INFINITY_RATIO * dim:
        raise UserError(
            f"FID infinity needs {INFINITY_RATIO * dim:,} samples or more with features of {dim:,} dimensions, not "
            f"{num_samples:,}"
        )


def fid_infinity(features: Tensor, reference: Reference) -> dict[str, Any]:
    """FID extrapolated to infinitely many samples: {value, std, sizes} (Chong and Forsyth 2020).

    FID is biased in proportion to 1/N: a line through the FIDs of 15 random subsets of the samples, from 5,000 (or a
    tenth) to all of them, meets 1/N = 0 at the value; std is the fit's alone, less than that between sets of
    samples. The bias by the real images' number stays. UserError where check_infinity() raises it.
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
