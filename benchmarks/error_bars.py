"""The accuracy of evaluate.py's error bars, on Gaussians with known FID. Prints JSON; takes a minute.

It compares the bootstrap's std with the std between independent sets of samples, and FID infinity with the analytic
FID, with few and with many samples per dimension.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from evaluation.inputs.reference import Reference
from evaluation.scores import certainty, metrics

FACTOR = 1.2  # of the samples' standard deviation; the real one is 1, so FID is dim * (FACTOR - 1)^2
SETS, RESAMPLES, REAL = 40, 40, 20_000


def gaussian(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def reference_of(dim):
    features = gaussian(REAL, dim, seed=10_000)
    return Reference(features, metrics.fid_statistics(features))


def kid(samples, real):
    return metrics.kid(samples, real)["mean"]


def bootstrap_ratio(score, interval, dim, count):
    """The bootstrap's std divided by the std between independent sets: the mean of three."""
    real = reference_of(dim)
    truth = np.std([score(FACTOR * gaussian(count, dim, seed), real) for seed in range(100, 100 + SETS)], ddof=1)
    found = [interval(0, FACTOR * gaussian(count, dim, seed), real, RESAMPLES)["std"] for seed in range(3)]
    return round(float(np.mean(found) / truth), 2)


def main():
    metrics.KID_SUBSETS = 10  # for time, on both sides of the ratio
    report = {"bootstrap std / true std": {}, "FID infinity": {}}
    for dim, count in ((4, 500), (64, 500), (64, 2000)):
        report["bootstrap std / true std"][f"{count} samples, {dim} dimensions"] = {
            "FID": bootstrap_ratio(metrics.fid, certainty.fid_interval, dim, count),
            "KID": bootstrap_ratio(kid, certainty.kid_interval, dim, count),
        }
    dim, certainty.INFINITY_RATIO = 128, 0  # also where evaluate.py refuses
    real = reference_of(dim)
    for ratio in (2.5, 5, 10, 20, 40):
        samples = FACTOR * gaussian(int(ratio * dim), dim, seed=0)
        found = certainty.fid_infinity(samples, real)
        report["FID infinity"][f"{ratio} samples a dimension"] = {
            "true": round(dim * (FACTOR - 1) ** 2, 2),
            "plain": round(metrics.fid(samples, real), 2),
            "infinity": round(found["value"], 2),
            "std of the fit": round(found["std"], 2),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
