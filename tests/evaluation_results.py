"""What tests of scoring begin with: images, checkpoints to be scored, and results made by hand."""

import torch
from helpers import random_images

from datasets.images import Images
from training.checkpoints.run_dir import checkpoint_path


def noise_images(count, seed=0):
    """Grey 2x2 images without labels."""
    return Images(random_images(count, 1, 2, 2, seed=seed), torch.full((count,), -1), ())


def result(step, fid, name="modern", **others):
    """A result as the evaluator gives it."""
    return {
        "checkpoint": f"run/checkpoints/step_{step:06d}.pt",
        "inception_score": {"mean": 8.0 + step / 1000, "std": 0.125},
        "fid": fid,
        "kid": {"mean": 0.5, "std": 0.25},
        "precision": 0.75,
        "recall": 0.5,
        "memorisation": {
            "real": "training images",
            "unseen": "test images",
            "distance_of_samples": 4.5,
            "distance_of_unseen": 3.25,
            "nearer": 0.375,
        },
        "warnings": [],
        "protocol": {
            "name": name,
            "departures": ["5,000 samples, not 50,000"],
            "dataset": "digits",
            "split": "train",
            "num_real": 50_000,
            "num_samples": 5000,
            "inception_score_samples": 5000,
            "features": "classifier",
            "features_sha256": "abcdef01" + 56 * "0",
            "features_warning": None,
            "step": step,
            "ema": True,
            "seed": 0,
        },
    } | others


def at(*steps):
    """What scores a run's checkpoints of these steps."""
    return lambda run: [checkpoint_path(run, step) for step in steps]
