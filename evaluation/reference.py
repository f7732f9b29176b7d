"""The real side of the scores: features of a split, taken once and kept in data_dir/.cache."""

import contextlib
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import Images
from utils.config import Config
from utils.distributed import broadcast, rank
from utils.files import load_tensors
from utils.threads import all_cores

from .features import CACHE, Extractor, Say, keep
from .metrics import Reference, fid_statistics
from .sampling import Given, extract

FORMAT = "sngan-reference-1"


def load_reference(
    config: Config, split: str, images: Images, extractor: Extractor, device: torch.device, say: Say = print
) -> Reference | None:
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
    if found is None:
        return None
    features = found[0]
    with all_cores():
        reference = Reference(features, fid_statistics(features))
    tensors = {name: torch.from_numpy(value) for name, value in reference.statistics.items()}
    content = {"key": key, "features": features.clone(), "statistics": tensors, "sha256": _checksum(reference)}
    keep(path, content, f"the features of the {split} images are", say)
    return reference


def _cached(path: Path, key: dict[str, Any]) -> Reference | None:
    with contextlib.suppress(Exception):  # absent, truncated, or anything else that is no such file: it is made anew
        content = load_tensors(path)
        if isinstance(content, dict) and content["key"] == key:
            statistics = {name: content["statistics"][name].numpy() for name in ("mu", "sigma")}
            reference = Reference(content["features"], statistics)
            return reference if content["sha256"] == _checksum(reference) else None
    return None


def _checksum(reference: Reference) -> str:
    digest = hashlib.sha256(reference.features.contiguous().numpy().data)
    for name in ("mu", "sigma"):
        digest.update(np.ascontiguousarray(reference.statistics[name]).data)
    return digest.hexdigest()
