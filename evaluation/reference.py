"""The real side of the scores: features of a split, taken once and kept in data_dir/.cache."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.distributed import all_cores, broadcast, rank
from utils.errors import UserError
from utils.files import load_tensors, save

from .features import CACHE
from .metrics import fid_statistics
from .sampling import Given, extract

FORMAT = "sngan-reference-1"


class Reference(NamedTuple):
    """Real images as the scores see them: features (N, d) float32, and their mean and covariance for the FID."""

    features: torch.Tensor
    statistics: dict


def load_reference(config, split, images, extractor, device, say=print):
    """The Reference of a split's images, from its cache or made now. On rank 0; None on the others.

    The cache holds its key and a checksum: one of other images or another extractor, or a damaged one, is made anew.
    """
    key = {
        "format": FORMAT,
        "dataset": config.dataset,
        "split": split,
        "count": len(images.images),
        "size": list(images.images.shape[1:]),
        "data_sha256": images.sha256(),
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "torch-fidelity": importlib.metadata.version("torch-fidelity"),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = Path(config.data_dir) / CACHE / f"reference_{config.dataset}_{split}_{digest[:12]}.pt"
    cached = _cached(path, key) if rank() == 0 else None
    if broadcast(cached is not None):
        return cached
    found = extract([extractor], Given(images.images), len(images.images), device, f"{split} images")
    if rank() > 0:
        return None
    features = found[0]
    with all_cores():
        reference = Reference(features, fid_statistics(features))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        statistics = {name: torch.from_numpy(value) for name, value in reference.statistics.items()}
        save(path, {"key": key, "features": features, "statistics": statistics, "sha256": _checksum(reference)})
    except (OSError, UserError) as error:
        say(f"the features of the {split} images are not kept for the next time: {error}")
    return reference


def _cached(path, key):
    try:
        content = load_tensors(path)
        if not isinstance(content, dict) or content["key"] != key:
            return None
        statistics = {name: content["statistics"][name].numpy() for name in ("mu", "sigma")}
        reference = Reference(content["features"], statistics)
        if content["sha256"] != _checksum(reference):
            return None
    except Exception:  # absent, truncated, or anything else that is no such file: it is made anew
        return None
    return reference


def _checksum(reference):
    digest = hashlib.sha256(reference.features.contiguous().numpy())
    for name in ("mu", "sigma"):
        digest.update(np.ascontiguousarray(reference.statistics[name]))
    return digest.hexdigest()
