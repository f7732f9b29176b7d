"""Scores on features: Inception Score, FID, KID, precision and recall, under the protocols in which they are published.

Every formula is torch-fidelity's; what is counted against what, and how sure a score is, is decided here. The
libraries are imported where they are used: together they take two seconds, which no training should wait for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.console import progress
from utils.errors import UserError

FULL = 50_000  # samples of the full protocols
IS_SPLITS = 10
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEIGHBOURS = 3  # of precision and recall
MIN_IMAGES = 10  # one for each of the Inception Score's splits
LEVEL = 0.95  # of an interval
INFINITY_POINTS, INFINITY_SMALLEST = 15, 5000  # sample counts of FID infinity (Chong and Forsyth 2020, section 4)
INFINITY_RATIO = 20  # samples for each dimension that it needs; see benchmarks/error_bars.py


# ---- Protocols -----------------------------------------------------------------------------------------------------


class Protocol(NamedTuple):
    """Which samples are scored against which real images, on a data set of the usual size."""

    num_samples: int  # FID, KID, precision and recall
    is_samples: int  # the Inception Score, over 10 splits
    split: str
    num_real: int
    shuffle: bool  # samples, before they are split


PROTOCOLS = {
    "modern": Protocol(FULL, FULL, "train", 50_000, True),
    "paper": Protocol(5_000, FULL, "test", 10_000, False),  # Miyato et al. 2018, section 4: 10 sets of 5,000
    "test": Protocol(10_000, 10_000, "test", 10_000, True),
}


def sample_counts(
    name: str, num_real: int, num_samples: int | None = None, available: int | None = None
) -> tuple[int, int]:
    """How many samples a protocol takes beside num_real images: (of FID, KID, precision and recall; of the IS).

    num_samples stands in the place of the 50,000, and all counts change in proportion. Without it, a data set smaller
    than the protocol's scales them. available: how many there are, if their number is limited.
    """
    protocol = PROTOCOLS[name]
    scale = num_samples / FULL if num_samples else min(1, num_real / protocol.num_real)
    counts = [max(MIN_IMAGES, round(count * scale)) for count in (protocol.num_samples, protocol.is_samples)]
    return min(counts[0], available or counts[0]), min(counts[1], available or counts[1])


def departures(name: str, num_samples: int, is_samples: int, num_real: int) -> list[str]:
    """Where the counts are not the protocol's own, in words: a list, empty where the score can be cited under it."""
    protocol = PROTOCOLS[name]
    pairs = [
        (num_samples, protocol.num_samples, "samples"),
        (is_samples, protocol.is_samples, "samples for the Inception Score"),
        (num_real, protocol.num_real, "real images"),
    ]
    if is_samples == num_samples and protocol.is_samples == protocol.num_samples:
        del pairs[1]
    return [f"{count:,} {what}, not {usual:,}" for count, usual, what in pairs if count != usual]


# ---- Scores, by torch-fidelity -------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """Real images as the scores see them: features (N, d) float32, and their mean and covariance for the FID."""

    features: Tensor
    statistics: dict[str, np.ndarray]


def inception_score(logits: Tensor, shuffle: bool = True) -> dict[str, float]:
    """{mean, std} over 10 splits of the samples' logits (N, k)."""
    from torch_fidelity import metric_isc

    found = metric_isc.isc_features_to_metric(logits, splits=IS_SPLITS, shuffle=shuffle)
    return {"mean": found[metric_isc.KEY_METRIC_ISC_MEAN], "std": found[metric_isc.KEY_METRIC_ISC_STD]}


def fid_statistics(features: Tensor) -> dict[str, np.ndarray]:
    """The mean and covariance of features (N, d), as {mu, sigma}."""
    from torch_fidelity import metric_fid

    return metric_fid.fid_features_to_statistics(features)


def fid(features: Tensor, reference: Reference) -> float:
    """FID of samples' features (N, d) against a Reference."""
    from torch_fidelity import metric_fid

    found = metric_fid.fid_statistics_to_metric(fid_statistics(features), reference.statistics, verbose=False)
    return found[metric_fid.KEY_METRIC_FID]


def kid_subset_size(num_samples: int, num_real: int) -> int:
    return min(KID_SUBSET_SIZE, num_samples, num_real)


def kid(features: Tensor, reference: Reference) -> dict[str, float]:
    """KID {mean, std} over 100 subsets of 1,000 images, or of as many as there are."""
    from torch_fidelity import metric_kid

    found = metric_kid.kid_features_to_metric(
        features,
        reference.features,
        kid_subsets=KID_SUBSETS,
        kid_subset_size=kid_subset_size(len(features), len(reference.features)),
        verbose=False,
    )
    return {"mean": found[metric_kid.KEY_METRIC_KID_MEAN], "std": found[metric_kid.KEY_METRIC_KID_STD]}


def precision_recall(features: Tensor, reference: Reference) -> dict[str, float]:
    """Precision and recall with 3 neighbours. Their cost grows with the square of the number of images."""
    from torch_fidelity import metric_prc

    found = metric_prc.prc_features_to_metric(
        features, reference.features, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False
    )
    return {"precision": found[metric_prc.KEY_METRIC_PRECISION], "recall": found[metric_prc.KEY_METRIC_RECALL]}


# ---- How sure a score is -------------------------------------------------------------------------------------------


def bootstrap(score: Callable[[Tensor], float], features: Tensor, resamples: int, label: str) -> dict[str, Any]:
    """The interval in which score(features (N, d)) lies for other samples of the same generator: {low, high, ...}.

    Samples are drawn with replacement; the reference stays. A resample repeats samples, which moves FID and KID up by
    about as much as their bias, so the 95 % interval is centred on the score itself. On Gaussians its std was 1 to 1.8
    times that between independent sets of samples (benchmarks/error_bars.py): rather too wide. It tells the spread, not
    the bias, and nothing of how runs with other seeds differ.
    """
    from scipy import stats

    with progress(label=f"bootstrap of the {label}", total=resamples, unit="resample") as bar:

        def of_resample(indices: np.ndarray) -> float:
            bar.update()
            return score(features[torch.from_numpy(indices)])

        found = stats.bootstrap(
            (np.arange(len(features)),),
            of_resample,
            n_resamples=resamples,
            vectorized=False,
            confidence_level=LEVEL,
            method="percentile",
            rng=0,
        )
    shift = score(features) - found.bootstrap_distribution.mean()
    interval = found.confidence_interval
    return {
        "low": float(interval.low + shift),
        "high": float(interval.high + shift),
        "level": LEVEL,
        "std": float(found.standard_error),
        "resamples": resamples,
    }


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
    subsets = (torch.from_numpy(rng.choice(count, size, replace=False)) for size in sizes)
    bar = progress(subsets, "FID infinity", INFINITY_POINTS, unit="subset")
    line = stats.linregress(1 / sizes, [fid(features[chosen], reference) for chosen in bar])
    return {"value": float(line.intercept), "std": float(line.intercept_stderr), "sizes": sizes.tolist()}
