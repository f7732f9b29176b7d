"""Scores of conditional generators: accuracy of requested classes, and FID within each class.

Intra-FID follows Miyato and Koyama 2018 (arXiv 1802.05637), section 4.1: the mean over classes of the FID between
samples and real images of one class.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datasets import Images
from utils.console import progress

from ..inputs.features import AnyClassifier
from ..inputs.reference import Reference, fid_statistics
from ..inputs.sampling import Source
from . import metrics


class Asked(NamedTuple):
    """The labels (N,) that samples were drawn for, and the names of all classes."""

    labels: Tensor
    names: tuple[str, ...]


def asked_of(source: Source, count: int) -> Asked | None:
    """The labels requested of a source's first `count` samples. None without classes."""
    labels = source.labels(0, count)
    return None if labels is None or source.classes is None else Asked(labels, source.classes.names)


def accuracy(
    asked: Asked | None, answers: Tensor, classifier: AnyClassifier | None, known: Sequence[str]
) -> dict[str, Any]:
    """{class_accuracy: the share of samples that the classifier puts into the requested class}; {} without classes.

    answers: the classifier's logits (N, k) for the classes `known`. The entry is {mean, classes: {name: accuracy},
    confusion: {asked, taken_for, share}, real: {split, accuracy}} or {mean: None, reason}. confusion: the most frequent
    mistake, as a share of its class's samples; real: the classifier's accuracy on real images.
    """
    if asked is None:
        return {}
    names, k = asked.names, len(asked.names)
    if classifier is None or tuple(known) != names:
        reason = "there is no classifier of the classes" if classifier is None else "the classifier knows other classes"
        return {"class_accuracy": {"mean": None, "reason": reason}}
    # Rows are the requested classes, columns the predicted ones.
    table = torch.bincount(asked.labels * k + answers.argmax(1), minlength=k * k).view(k, k).double()
    each = (table.diagonal() / table.sum(1)).tolist()  # NaN if a class was never requested
    asked_for, taken_for = divmod(int((table - table.diag().diag()).argmax()), k)
    share = (table[asked_for, taken_for] / table[asked_for].sum()).item()
    confusion = {"asked": names[asked_for], "taken_for": names[taken_for], "share": share}
    found = {
        "mean": (table.trace() / table.sum()).item(),
        "classes": {name: value for name, value in zip(names, each) if value == value},
        "confusion": confusion if asked_for != taken_for and share > 0 else None,
        "real": {name: classifier.examined[name] for name in ("split", "accuracy")},
    }
    return {"class_accuracy": found}


def within(asked: Asked | None, features: Tensor, reference: Reference, real: Images) -> dict[str, Any]:
    """{intra_fid: the FIDs within classes of samples' features (N, d) against a Reference}; {} without classes.

    real: the Reference's images. The entry is {mean, worst: {class, fid}, classes: {name: fid}}, or {mean: None,
    reason} if a class has too few samples or real images for its covariance: no more than the features' dimensions.
    """
    if asked is None:
        return {}
    if real.classes != asked.names or bool((real.labels < 0).any()):
        return {"intra_fid": {"mean": None, "reason": "the real images have other classes, or none"}}
    labels, dimension = asked.labels[: len(features)], features.size(1)
    for what, of_each in (("samples", labels), ("real images", real.labels)):
        counts = torch.bincount(of_each, minlength=len(asked.names))
        least = int(counts.argmin())
        if counts[least] <= dimension:
            few = f"class {asked.names[least]} has {counts[least]:,} {what}"
            reason = f"{few}, but more than {dimension:,} are needed, the number of dimensions of the features"
            return {"intra_fid": {"mean": None, "reason": reason}}
    found = {}
    for label, name in progress(enumerate(asked.names), "intra-FID", len(asked.names), unit="class"):
        of_class = reference.features[real.labels == label]
        found[name] = metrics.fid(features[labels == label], Reference(of_class, fid_statistics(of_class)))
    worst = max(found, key=lambda name: found[name])
    mean = sum(found.values()) / len(found)
    return {"intra_fid": {"mean": mean, "worst": {"class": worst, "fid": found[worst]}, "classes": found}}


def lines(result: dict[str, Any]) -> list[str]:
    """The scores of a result's classes as lines of text."""
    found = []
    if accuracy := result.get("class_accuracy"):
        if accuracy["mean"] is None:
            text = f"unknown, because {accuracy['reason']}"
        else:
            real = accuracy["real"]
            text = f"{accuracy['mean']:.2%}, of real {real['split']} images {real['accuracy']:.2%}"
        if wrong := accuracy.get("confusion"):
            text += f" (most often wrong: {wrong['asked']} taken for {wrong['taken_for']}, {wrong['share']:.1%})"
        found.append(f"class accuracy {text}")
    if intra := result.get("intra_fid"):
        if intra["mean"] is None:
            found.append(f"intra-FID unknown: {intra['reason']}")
        else:
            worst = intra["worst"]
            found.append(f"intra-FID {intra['mean']:z.2f} (worst: {worst['class']}, {worst['fid']:z.2f})")
    return found
