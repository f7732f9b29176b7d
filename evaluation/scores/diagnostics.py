"""Diagnostics beyond the scores: does the generator copy training images, and does it drop modes?

Distances are Euclidean, in feature space. "Unseen" images are those of the test split or, without one, training images,
each compared with the others.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datasets import spaced
from utils.console import progress

from .modes import NUM_SAMPLES

QUERIES = 5000  # images, at most, whose nearest neighbours are searched: the cost grows with it
CHUNK = 1000  # queries compared at once, to limit the memory
PICTURED, NEIGHBOURS = 8, 5  # samples in the picture, and training images next to each

# Thresholds of the warnings. On digits, `nearer` was 0.36 with 1,498 training images, and 0.7 to 0.8 with 200.
MEMORISING = 0.65  # probability that a sample is nearer to the training images than an unseen image
COLLAPSED = 0.25  # distance between samples, as a share of that between real images
DROPPED, CHANCE = 0.25, 1e-4  # a class's share, relative to its real share; probability of so few by chance
LOW_RECALL = 0.1
FEW_MODES = 0.9  # share of the combinations of stacked digits; real images have all


class Neighbours(NamedTuple):
    """Indices of samples (n,) and of their nearest training images (n, k), and the distances (n, k).

    The first half are the samples nearest to a training image; the second half are evenly spaced among all samples.
    """

    samples: Tensor
    training: Tensor
    distances: Tensor


def nearest(
    queries: Tensor, images: Tensor, k: int = 1, own: Tensor | None = None, label: str = "nearest images"
) -> tuple[Tensor, Tensor]:
    """Find the k nearest of the images (M, d) to each query (N, d): distances (N, k) and indices (N, k).

    own (N,): the queries' indices among the images, so that none is its own neighbour. label: of the progress bar.
    """
    found = []
    for start in progress(range(0, len(queries), CHUNK), label, unit="block"):
        apart = torch.cdist(queries[start : start + CHUNK], images)
        if own is not None:
            apart.scatter_(1, own[start : start + CHUNK, None], torch.inf)
        found.append(apart.topk(min(k, len(images) - (own is not None)), largest=False))
    distances, indices = map(torch.cat, zip(*found))
    return distances, indices


def unseen_distances(training: Tensor, unseen: Tensor | None = None) -> Tensor:
    """Distances (n,) of unseen images (K, d), at most 5,000, to the nearest training image (M, d).

    Without unseen images, each training image is compared with the others. The samples have no influence on this.
    """
    queries = training if unseen is None else unseen
    chosen = spaced(len(queries), QUERIES)
    own = chosen if unseen is None else None
    return nearest(queries[chosen], training, own=own, label="nearest of unseen images")[0][:, 0]


def memorisation(
    samples: Tensor, training: Tensor, of_unseen: Tensor, real: str, unseen: str
) -> tuple[dict[str, Any], Neighbours]:
    """Compare the distances of samples (N, d) to training images (M, d) with those of unseen images.

    of_unseen: from unseen_distances(); real, unseen: the images' names in words. `nearer`: the probability that a
    sample is nearer to its closest training image than an unseen image is to its own (Meehan et al. 2020).
    """
    from scipy import stats

    chosen = spaced(len(samples), QUERIES)
    of_samples, indices = nearest(samples[chosen], training, NEIGHBOURS, label="nearest of samples")
    first = of_samples[:, 0]
    statistic = stats.mannwhitneyu(of_unseen.numpy(), first.numpy()).statistic
    found = {
        "real": real,
        "unseen": unseen,
        "distance_of_samples": first.median().item(),
        "distance_of_unseen": of_unseen.median().item(),
        "nearer": float(statistic / len(first) / len(of_unseen)),
    }
    shown = torch.cat([first.argsort()[:PICTURED], spaced(len(first), PICTURED)])
    return found, Neighbours(chosen[shown], indices[shown], of_samples[shown])


def diversity(samples: Tensor, training: Tensor) -> dict[str, float]:
    """The median distances to the nearest other image among samples (N, d) and as many training images (M, d)."""
    count = min(len(samples), len(training), QUERIES)
    parts = [features[spaced(len(features), count)] for features in (samples, training)]
    medians = [nearest(part, part, own=torch.arange(count))[0].median().item() for part in parts]
    return {"distance_between_samples": medians[0], "distance_between_real": medians[1]}


def class_shares(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The shares of classes among samples, by classifier logits (N, k), and training images, by labels.

    Missing classes have less than DROPPED of their real share, and so few by chance with a probability below CHANCE.
    """
    from scipy import stats

    counts = torch.bincount(answers.argmax(1), minlength=len(classes)).tolist()
    expected = (torch.bincount(labels, minlength=len(classes)).double() / len(labels)).tolist()
    missing = [
        name
        for name, count, share in zip(classes, counts, expected)
        if count < DROPPED * share * len(answers) and stats.binom.cdf(count, len(answers), share) < CHANCE
    ]
    return {
        "class_share": dict(zip(classes, (count / len(answers) for count in counts))),
        "class_share_training": dict(zip(classes, expected)),
        "classes_missing": missing,
    }


def warnings(result: dict[str, Any]) -> list[str]:
    """Sentences about the faults of a generator, from the entries of its result."""
    found = []
    apart, apart_real = (result["diversity"][f"distance_between_{what}"] for what in ("samples", "real"))
    if missing := result.get("classes_missing"):
        found.append(f"the generator drops modes: almost no samples of class {', '.join(missing)}")
    if apart < COLLAPSED * apart_real:  # the other warnings would follow from it
        told = f"the median distance to the nearest sample is {apart:.2g}, between real images {apart_real:.2g}"
        return [f"the generator has collapsed: {told}", *found]
    modes = result.get("modes", {"num_samples": 0})
    enough = modes["num_samples"] >= NUM_SAMPLES  # fewer samples miss some by chance
    if enough and modes["found"] < FEW_MODES * modes["of"]:
        told = f"{modes['num_samples']:,} samples show {modes['found']:,} of {modes['of']:,} combinations"
        found.append(f"the generator drops modes: {told}")
    memory = result["memorisation"]
    if memory["nearer"] > MEMORISING:
        found.append(
            f"the generator may copy {memory['real']}: a sample is nearer to one than {memory['unseen']} are in "
            f"{memory['nearer']:.0%} of comparisons; look at the picture of nearest neighbours"
        )
    if result["recall"] < LOW_RECALL:
        found.append(
            f"recall {result['recall']:.3f}: most real images are far from all samples, so modes are missing or the "
            "samples are unlike the data"
        )
    return found
