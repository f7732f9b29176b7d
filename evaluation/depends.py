"""What a score depends on, as its protocol says it: counts, real images, extractor, versions, the samples' order."""

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

from datasets import Classes
from settings.config import Config

from .inputs.sampling import Given, Source
from .scores import conditional, manifold, metrics, modes

if TYPE_CHECKING:
    from .evaluator import Evaluator

PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "scipy")


def protocol(evaluator: "Evaluator", name: str, counts: tuple[int, int]) -> dict[str, Any]:
    """Everything that a score under this protocol depends on, but where the samples come from.

    counts: what metrics.sample_counts() gave.
    """
    split, extractor = metrics.PROTOCOLS[name].split, evaluator.extractor
    num_real, (num_samples, is_samples) = len(evaluator.images(split).images), counts
    reference = evaluator.references.get(split)
    return {
        "name": name,
        "departures": metrics.departures(name, *counts, num_real),
        "dataset": evaluator.config.dataset,
        "reference": evaluator.folder,
        "split": split,
        "data_sha256": evaluator.sha256(split),
        "num_real": num_real,
        "num_samples": num_samples,
        "inception_score_samples": is_samples,
        "inception_score_splits": metrics.IS_SPLITS,
        "inception_score_shuffled": metrics.PROTOCOLS[name].shuffle,
        "kid_subsets": metrics.KID_SUBSETS,
        "kid_subset_size": metrics.kid_subset_size(num_samples, num_real),
        "precision_recall_neighbours": manifold.NEIGHBOURS,
        "density_coverage_neighbours": manifold.FARTHEST,
        **modes.facts(evaluator.frequencies),
        "features": extractor.name,
        "features_sha256": extractor.sha256,
        "features_dimension": reference.features.size(1) if reference else None,
        "features_warning": extractor.warning,
        "class_share_sha256": evaluator.classifier.sha256 if evaluator.classifier else None,
        "image_size": evaluator.config.image_size,
        "resize": extractor.resize,
        "quantisation": "uint8, round((x + 1) * 127.5)",
        "device": evaluator.device.type,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def of_run(config: Config, classes: Classes | None) -> dict[str, Any]:
    """What a score's protocol says of how its generator was trained, where that is not as usual."""
    part = {} if config.num_images is None else {"num_images": config.num_images}
    return conditional.facts(config, classes) | part


def in_order(
    source: Source, facts: dict[str, Any], counts: dict[str, tuple[int, int]], looked: int
) -> tuple[Source, dict[str, Any]]:
    """The source and its facts; images that exist in a random order, where a part of them is to be like the whole.

    counts: of each protocol; looked: how many of them are looked at in all.
    """
    if not (isinstance(source, Given) and source.count):
        return source, facts
    whole = source.count, source.count
    part = looked < source.count
    part |= any(pair != whole or not metrics.PROTOCOLS[name].shuffle for name, pair in counts.items())
    return source.shuffled() if part else source, facts | {"samples_shuffled": part}
