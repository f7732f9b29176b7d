"""Protocols: which samples are compared with which real images. Also a record of all that a score depends on."""

import importlib.metadata
import platform
from typing import Any, NamedTuple

from torch import Tensor

from datasets import Classes
from settings.config import Config

from .inputs.features import AnyClassifier, Extractor
from .inputs.reference import MIN_IMAGES, Real
from .scores import manifold, metrics, modes

FULL = 50_000  # samples of the full protocols
PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "scipy")


class Protocol(NamedTuple):
    """The samples and real images to compare, for a data set of the usual size."""

    num_samples: int  # for all scores except the Inception Score
    is_samples: int  # for the Inception Score, over 10 splits
    split: str
    num_real: int
    shuffle: bool  # the samples before they are split


PROTOCOLS = {
    "modern": Protocol(FULL, FULL, "train", 50_000, True),
    "paper": Protocol(5_000, FULL, "test", 10_000, False),  # Miyato et al. 2018, section 4: 10 sets of 5,000
    "test": Protocol(10_000, 10_000, "test", 10_000, True),
}


class Plan(NamedTuple):
    """A protocol's name, and the numbers of samples for the Inception Score and for all others."""

    name: str
    num_samples: int
    is_samples: int

    @property
    def full(self) -> Protocol:
        return PROTOCOLS[self.name]

    def departures(self, num_real: int) -> list[str]:
        """Counts that differ from the protocol's, in words. Empty if a score may be cited under the protocol's name."""
        triples = [
            (self.num_samples, self.full.num_samples, "samples"),
            (self.is_samples, self.full.is_samples, "samples for the Inception Score"),
            (num_real, self.full.num_real, "real images"),
        ]
        if self.is_samples == self.num_samples and self.full.is_samples == self.full.num_samples:
            del triples[1]
        return [f"{count:,} {what}, not {usual:,}" for count, usual, what in triples if count != usual]


def plan(name: str, num_real: int, num_samples: int | None = None, available: int | None = None) -> Plan:
    """The Plan of a protocol for num_real images.

    num_samples replaces the 50,000, and all counts change in proportion. Without it, the counts are scaled down for a
    data set smaller than the protocol's. available: the number of samples, if it is limited.
    """
    full = PROTOCOLS[name]
    scale = num_samples / FULL if num_samples else min(1, num_real / full.num_real)
    counts = [max(MIN_IMAGES, round(count * scale)) for count in (full.num_samples, full.is_samples)]
    return Plan(name, *(min(count, available or count) for count in counts))


def facts(
    plan: Plan, real: Real, extractor: Extractor, classifier: AnyClassifier | None, frequencies: Tensor | None
) -> dict[str, Any]:
    """Everything that a score depends on, except the source of the samples.

    classifier: the one that finds the samples' classes. frequencies: those of the modes, if modes are counted.
    """
    split = plan.full.split
    num_real, reference = real.count(split), real.references.get(split)
    of_modes = {
        "modes_samples": modes.NUM_SAMPLES,
        "modes_kl": "KL(samples || data) in nats, by the labels of all training images",
    }
    return {
        "name": plan.name,
        "departures": plan.departures(num_real),
        "dataset": real.config.dataset,
        "reference": real.folder,
        "split": split,
        "data_sha256": real.sha256(split),
        "num_real": num_real,
        "num_samples": plan.num_samples,
        "inception_score_samples": plan.is_samples,
        "inception_score_splits": metrics.IS_SPLITS,
        "inception_score_shuffled": plan.full.shuffle,
        "kid_subsets": metrics.KID_SUBSETS,
        "kid_subset_size": metrics.kid_subset_size(plan.num_samples, num_real),
        "precision_recall_neighbours": manifold.NEIGHBOURS,
        "density_coverage_neighbours": manifold.FARTHEST,
        **({} if frequencies is None else of_modes),
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_dimension": reference.features.size(1) if reference else None,
        "features_warning": extractor.warning,
        "class_share_sha256": classifier.sha256 if classifier else None,
        "image_size": real.config.image_size,
        "resize": extractor.resize,
        "quantisation": "uint8, round((x + 1) * 127.5)",
        "device": real.device.type,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def of_run(config: Config, classes: Classes | None) -> dict[str, Any]:
    """Facts about a generator's training that a score depends on: classes and --num_images, if any."""
    found: dict[str, Any] = {}
    if classes is not None:
        found |= {"conditional": config.conditional, "num_classes": len(classes.names)}
        found |= {"labels": "each class as often as in training, from the seed and the sample's number"}
    return found if config.num_images is None else found | {"num_images": config.num_images}
