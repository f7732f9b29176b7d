"""How far the error bars of evaluate.py can be trusted, on Gaussians whose true FID is known. Prints JSON; a minute.

The std that a bootstrap reports beside that between independent sets of samples; FID infinity beside the analytic FID
with few and many samples for each dimension.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from evaluation import metrics
from evaluation.reference import Reference

FACTOR = 1.2  # of the samples' standard deviation; the real one is 1, so FID is dim * (FACTOR - 1)^2
SETS, RESAMPLES, REAL = 40, 40, 20_000


def gaussian(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def reference_of(dim):
    features = gaussian(REAL, dim, seed=10_000)
    return Reference(features, metrics.fid_statistics(features))


def bootstrap_ratio(score, dim, count):
    """The bootstrap's std over that between independent sets: the mean of three."""
    truth = np.std([score(FACTOR * gaussian(count, dim, seed)) for seed in range(100, 100 + SETS)], ddof=1)
    found = [metrics.bootstrap(score, FACTOR * gaussian(count, dim, seed), RESAMPLES, "")["std"] for seed in range(3)]
    return round(float(np.mean(found) / truth), 2)


def main():
    metrics.KID_SUBSETS = 10  # for time, on both sides of the ratio
    report = {"bootstrap std / true std": {}, "FID infinity": {}}
    for dim, count in ((4, 500), (64, 500), (64, 2000)):
        real = reference_of(dim)
        scores = {"FID": lambda x, r=real: metrics.fid(x, r), "KID": lambda x, r=real: metrics.kid(x, r)["mean"]}
        report["bootstrap std / true std"][f"{count} samples, {dim} dimensions"] = {
            name: bootstrap_ratio(score, dim, count) for name, score in scores.items()
        }
    dim, metrics.INFINITY_RATIO = 128, 0  # also where evaluate.py refuses
    real = reference_of(dim)
    for ratio in (2.5, 5, 10, 20, 40):
        samples = FACTOR * gaussian(int(ratio * dim), dim, seed=0)
        found = metrics.fid_infinity(samples, real)
        report["FID infinity"][f"{ratio} samples a dimension"] = {
            "true": round(dim * (FACTOR - 1) ** 2, 2),
            "plain": round(metrics.fid(samples, real), 2),
            "infinity": round(found["value"], 2),
            "std of the fit": round(found["std"], 2),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
