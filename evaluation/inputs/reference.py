"""The real side of the scores: a split's features and what follows from them, made once, kept in the cache."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets import Images, cache_folder
from settings.config import Config
from utils.console import announced
from utils.distributed import broadcast, rank
from utils.files import load_tensors
from utils.threads import all_cores

from ..scores import manifold
from ..scores.modes import StackedClassifier
from .features import Extractor, Say, keep
from .sampling import Given, extract

FORMAT = "sngan-reference-1"
FORMAT_BESIDE = "sngan-beside-reference-1"


def fid_statistics(features: Tensor) -> dict[str, np.ndarray]:
    """The mean and covariance of features (N, d), as {mu, sigma}."""
    from torch_fidelity import metric_fid

    with announced(f"computing the covariance of {len(features):,} features"):
        return metric_fid.fid_features_to_statistics(features)


class Beside:
    """Further files beside a reference's own: what follows from it, each with a key and a checksum as that has."""

    def __init__(self, path: Path, key: dict[str, Any], say: Say) -> None:
        self.path, self.key, self.say = path, key, say

    def _file(self, name: str, facts: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        key = {"format": FORMAT_BESIDE, "reference": self.key, "name": name, **facts}
        return self.path.with_name(f"{self.path.stem}_{name}_{_digest(key)}.pt"), key

    def load(self, name: str, facts: dict[str, Any]) -> Any:
        """The tensor, or what JSON can hold, that was kept under a name and facts; None where there is none."""
        path, key = self._file(name, facts)
        with contextlib.suppress(Exception):  # absent, damaged, or anything else that is no such file
            content = load_tensors(path)
            if content["key"] == key and content["sha256"] == _value_sha256(content["value"]):
                return content["value"]
        return None

    def keep(self, name: str, facts: dict[str, Any], value: Any, what: str) -> None:
        """Keep a value; where it cannot be, that is said: what is "the radii are"."""
        path, key = self._file(name, facts)
        keep(path, {"key": key, "value": value, "sha256": _value_sha256(value)}, what, self.say)


class Reference:
    """Real images as the scores see them: features (N, d) float32, and their mean and covariance for the FID.

    What follows from these alone is computed when it is first asked for, and for all samples. beside: where it is kept.
    logits (N, k): the extractor's answers, only where the features have just been taken.
    """

    def __init__(self, features: Tensor, statistics: dict[str, np.ndarray], beside: Beside | None = None) -> None:
        self.features, self.statistics, self.beside = features, statistics, beside
        self.logits: Tensor | None = None
        self.kernel_means: dict[tuple[int, ...], np.ndarray] = {}  # what metrics.kernel_sums() found of it
        self.known: dict[str, Tensor] = {}

    @functools.cached_property
    def radii(self) -> Tensor:
        """What manifold.radii() gives for the features; its cost grows with the square of their number."""
        facts, what = {"neighbours": manifold.FARTHEST}, "the distances between real images are"
        return self.kept("radii", facts, lambda: manifold.radii(self.features, "neighbours of real images"), what)

    def kept(self, name: str, facts: dict[str, Any], make: Callable[[], Tensor], what: str) -> Tensor:
        """What make() gives and no sample changes: from memory, from beside the reference, or made now and kept there.

        facts: what it depends on beside the reference. what: such as "the radii are", where they cannot be kept.
        """
        place = f"{name}_{_digest(facts)}"
        if place not in self.known:
            found = self.beside.load(name, facts) if self.beside else None
            if found is None:
                found = make()
                if self.beside:
                    self.beside.keep(name, facts, found, what)
            self.known[place] = found
        return self.known[place]

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A root R (d, r) of the covariance R R^T, of its rank r: constant or dependent features add no column."""
        with announced("computing a root of the real covariance"):
            values, vectors = np.linalg.eigh(self.statistics["sigma"])
        kept = values > max(values.max(), 0) * len(values) * np.finfo(values.dtype).eps
        return vectors[:, kept] * np.sqrt(values[kept])


def load_reference(
    config: Config,
    split: str,
    images: Images,
    extractor: Extractor | StackedClassifier,
    device: torch.device,
    say: Say = print,
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
    path = cache_folder(config) / f"reference_{config.dataset}_{split}_{_digest(key)}.pt"
    beside = Beside(path, key, say)
    with announced(f"reading the features of the {split} images, which were kept"):
        cached = _cached(path, key, beside) if rank() == 0 else None
    if broadcast(cached is not None):
        return cached
    found = extract([extractor], Given(images.images), len(images.images), device, f"{split} images")
    if found is None:
        return None
    features, logits = found
    with all_cores():
        reference = Reference(features, fid_statistics(features), beside)
    reference.logits = logits
    tensors = {name: torch.from_numpy(value) for name, value in reference.statistics.items()}
    content = {"key": key, "features": features.clone(), "statistics": tensors, "sha256": _checksum(reference)}
    with announced(f"keeping the features of the {split} images for the next time"):
        keep(path, content, f"the features of the {split} images are", say)
    return reference


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _cached(path: Path, key: dict[str, Any], beside: Beside) -> Reference | None:
    with contextlib.suppress(Exception):  # absent, truncated, or anything else that is no such file: it is made anew
        content = load_tensors(path)
        if isinstance(content, dict) and content["key"] == key:
            statistics = {name: content["statistics"][name].numpy() for name in ("mu", "sigma")}
            reference = Reference(content["features"], statistics, beside)
            return reference if content["sha256"] == _checksum(reference) else None
    return None


def _checksum(reference: Reference) -> str:
    digest = hashlib.sha256(reference.features.contiguous().numpy().data)
    for name in ("mu", "sigma"):
        digest.update(np.ascontiguousarray(reference.statistics[name]).data)
    return digest.hexdigest()


def _value_sha256(value: Any) -> str:
    data = value.contiguous().numpy().data if isinstance(value, Tensor) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
