"""Real images for the scores: features and results derived from them, computed once and cached."""

import contextlib
import dataclasses
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

from datasets import Images, cache_folder, has_test_split, load_split
from settings.config import Config
from utils.console import announced
from utils.distributed import broadcast, rank, rank_zero_first
from utils.errors import UserError
from utils.files import load_tensors
from utils.threads import all_cores

from .features import Extractor, Say, keep
from .sampling import Given, extract

FORMAT, FORMAT_BESIDE = "sngan-reference-1", "sngan-beside-reference-1"
MIN_IMAGES = 10  # one for each split of the Inception Score


def fid_statistics(features: Tensor) -> dict[str, np.ndarray]:
    """The mean and covariance of features (N, d), as {mu, sigma}."""
    from torch_fidelity import metric_fid

    with announced(f"computing the covariance of {len(features):,} features"):
        return metric_fid.fid_features_to_statistics(features)


class Kept:
    """A cache file: a value with its key and a checksum. It counts as absent if damaged or of another key."""

    def __init__(self, path: Path, key: dict[str, Any], say: Say) -> None:
        self.path, self.key, self.say = path, key, say

    def load(self) -> Any:
        """Load the value: tensors, JSON values or a dict of both. Returns None if the file is absent or unusable."""
        with contextlib.suppress(Exception):  # absent, truncated or another kind of file
            content = load_tensors(self.path)
            if isinstance(content, dict) and content["key"] == self.key:
                return content["value"] if content["sha256"] == _sha256(content["value"]) else None
        return None

    def save(self, value: Any, what: str) -> None:
        """Write a value, or report why not. what: such as "the radii are"."""
        keep(self.path, {"key": self.key, "value": value, "sha256": _sha256(value)}, what, self.say)

    def beside(self, name: str, facts: dict[str, Any]) -> "Kept":
        """The cache file of a result that depends on this value and these facts."""
        key = {"format": FORMAT_BESIDE, "reference": self.key, "name": name, **facts}
        return Kept(self.path.with_name(f"{self.path.stem}_{name}_{_digest(key)}.pt"), key, self.say)


@dataclasses.dataclass(eq=False)
class Reference:
    """Real images as the scores need them: features (N, d) float32, their mean and covariance.

    logits (N, k): the extractor's outputs, if known. kept: the cache file. Results that depend only on the reference
    are computed on first use and cached next to that file.
    """

    features: Tensor
    statistics: dict[str, np.ndarray]
    logits: Tensor | None = None
    kept: Kept | None = None
    known: dict[str, Any] = dataclasses.field(default_factory=dict)

    def once(self, name: str, facts: dict[str, Any], make: Callable[[], Any], what: str) -> Any:
        """Return the result of make(), which no sample changes, from memory, its file, or computed now.

        facts: other things that it depends on. what: as in Kept.save().
        """
        place = f"{name}_{_digest(facts)}"
        if place not in self.known:
            file = self.kept.beside(name, facts) if self.kept else None
            found = file.load() if file else None
            if found is None:
                found = make()
                if file:
                    file.save(found, what)
            self.known[place] = found
        return self.known[place]

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A root R (d, r) of the covariance R R^T of rank r. Constant or dependent features add no column."""
        with announced("computing a root of the real covariance"):
            values, vectors = np.linalg.eigh(self.statistics["sigma"])
        kept = values > max(values.max(), 0) * len(values) * np.finfo(values.dtype).eps
        return vectors[:, kept] * np.sqrt(values[kept])


def load_reference(
    config: Config, split: str, images: Images, extractor: Extractor, device: torch.device, say: Say = print
) -> Reference | None:
    """Load the Reference of a split's images from the cache, or compute it now. Returns None on ranks other than 0.

    The key names the images and the extractor, so a Reference of others is never used.
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
    file = Kept(cache_folder(config) / f"reference_{config.dataset}_{split}_{_digest(key)}.pt", key, say)
    with announced(f"reading the cached features of the {split} images"):
        known = file.load() if rank() == 0 else None
    if not broadcast(known is not None):
        found = extract([extractor], Given(images.images), len(images.images), device, f"{split} images")
        if found is not None:
            with all_cores():
                statistics = fid_statistics(found[0])
            known = {"features": found[0].clone(), "logits": found[1].clone()}  # without the last block's rest
            known |= {name: torch.from_numpy(value) for name, value in statistics.items()}
            with announced(f"saving the features of the {split} images"):
                file.save(known, f"the features of the {split} images are")
    if known is None:
        return None
    return Reference(known["features"], {name: known[name].numpy() for name in ("mu", "sigma")}, known["logits"], file)


class Real:
    """The splits of real images and their References, each loaded on first use.

    config: of the data; train: its training split, already loaded. folder: of images that replace the data set's.
    """

    def __init__(
        self, config: Config, train: Images | None, device: torch.device, say: Say, folder: str | None = None
    ) -> None:
        self.device, self.say, self.folder = device, say, folder
        self.config = dataclasses.replace(config, dataset="folder", data_dir=folder) if folder else config
        self.splits: dict[str, Images | None] = {"train": load_split(self.config) if folder else train}
        if has_test_split(self.config):
            self.splits["test"] = None
        self.references: dict[str, Reference | None] = {}
        self.sha256 = functools.cache(lambda split: self.images(split).sha256())

    def images(self, split: str) -> Images:
        """The images of a split. Raises UserError if the data have no such split, or too few images."""
        if split not in self.splits:
            raise UserError(
                f"{self.config.data_dir} has no test images: a folder's splits are its subfolders train and test"
            )
        found = self.splits[split]
        if found is None:
            with rank_zero_first():
                found = self.splits[split] = load_split(self.config, split)
        if len(found.images) < MIN_IMAGES:
            raise UserError(f"scores need at least {MIN_IMAGES} real images, but the {split} split has fewer")
        return found

    def count(self, split: str) -> int:
        """The number of images in a split."""
        return len(self.images(split).images)

    def reference(self, split: str, extractor: Extractor) -> Reference | None:
        """The Reference of a split, loaded or computed on first use. None on ranks other than 0."""
        if split not in self.references:
            images = self.images(split)
            self.references[split] = load_reference(self.config, split, images, extractor, self.device, self.say)
        return self.references[split]

    def compared(self, extractor: Extractor) -> list[Reference | None]:
        """The References to compare samples with: of training and, if enough, test images."""
        if "test" in self.splits:
            try:
                self.images("test")
            except UserError as error:
                self.say(f"samples are not compared with test images: {error}")
                del self.splits["test"]
        return [self.reference(split, extractor) for split in self.splits]


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _sha256(value: Any) -> str:
    """A checksum of a tensor, or of JSON values that may contain tensors."""

    def of_tensor(tensor: Tensor) -> str:
        return hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()

    return hashlib.sha256(json.dumps(value, sort_keys=True, default=of_tensor).encode()).hexdigest()
