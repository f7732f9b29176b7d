"""What the scores do not tell: does the generator copy its training images, does it leave out what it should draw?

Distances are Euclidean, in feature space. "Unseen" images are those of the test split or, where there is none, training
images without themselves.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datasets import spaced
from utils.console import progress

from .modes import NUM_SAMPLES

QUERIES = 5000  # images whose nearest neighbours are sought, at most: the cost grows with it
CHUNK = 1000  # queries compared at once, to bound the memory
PICTURED, NEIGHBOURS = 8, 5  # samples in the picture, and the training images beside each

# When to warn. Measured on digits: trained on 1,498 images, `nearer` is 0.36; on 200, it passes 0.7 and reaches 0.8.
MEMORISING = 0.65  # samples nearer to the training images than unseen ones, as a probability
COLLAPSED = 0.25  # distance between samples, of that between real images
DROPPED, CHANCE = 0.25, 1e-4  # a class's share, of its real share; and how improbable so few must be
LOW_RECALL = 0.1
FEW_MODES = 0.9  # of the combinations of stacked digits, of which real images have all


class Neighbours(NamedTuple):
    """Samples by their numbers (n,), each one's nearest training images (n, k), and how far they are (n, k).

    The first half are the samples that are nearest to a training image, the second half any, evenly spaced.
    """

    samples: Tensor
    training: Tensor
    distances: Tensor


def nearest(
    queries: Tensor, images: Tensor, k: int = 1, own: Tensor | None = None, label: str = "nearest images"
) -> tuple[Tensor, Tensor]:
    """The k nearest images (M, d) of each query (N, d): distances (N, k) and indices (N, k).

    own (N,): the numbers that the queries have among the images; then none is its own neighbour. label: of the bar.
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
    """How far unseen images (K, d) lie from the nearest training image (M, d): (n,), of some 5,000 at most.

    Without unseen images, it is training images without themselves. No sample changes this.
    """
    queries = training if unseen is None else unseen
    chosen = spaced(len(queries), QUERIES)
    own = chosen if unseen is None else None
    return nearest(queries[chosen], training, own=own, label="nearest of unseen images")[0][:, 0]


def memorisation(
    samples: Tensor, training: Tensor, of_unseen: Tensor, real: str, unseen: str
) -> tuple[dict[str, Any], Neighbours]:
    """How near samples (N, d) lie to training images (M, d), beside what unseen_distances() gives: (dict, Neighbours).

    nearer: the probability that a sample is nearer to a training image than an unseen image is (0.5: alike; the effect
    size of the Mann-Whitney test, as in Meehan et al. 2020). real, unseen: what these images are called in words.
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
    """The median distance of a sample (N, d) to the next sample, beside that among as many training images (M, d)."""
    count = min(len(samples), len(training), QUERIES)
    parts = [features[spaced(len(features), count)] for features in (samples, training)]
    medians = [nearest(part, part, own=torch.arange(count))[0].median().item() for part in parts]
    return {"distance_between_samples": medians[0], "distance_between_real": medians[1]}


def class_shares(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The share of samples in each class by the classifier's logits (N, k), and of the training images by their labels.

    And the classes that are missing: less than DROPPED of their share, where chance would hardly leave so few.
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
    """Sentences about what is wrong with a generator, from the entries of its result."""
    found = []
    apart, apart_real = (result["diversity"][f"distance_between_{what}"] for what in ("samples", "real"))
    if missing := result.get("classes_missing"):
        found.append(f"the generator drops modes: hardly a sample of class {', '.join(missing)}")
    if apart < COLLAPSED * apart_real:  # what else is wrong follows from that
        told = f"a sample is as near as {apart:.2g} to the next, where real images are {apart_real:.2g} apart"
        return [f"the generator has collapsed: {told}", *found]
    modes = result.get("modes", {"num_samples": 0})
    enough = modes["num_samples"] >= NUM_SAMPLES  # among fewer, chance alone leaves some out
    if enough and modes["found"] < FEW_MODES * modes["of"]:
        told = f"{modes['found']:,} of {modes['of']:,} combinations are among {modes['num_samples']:,} samples"
        found.append(f"the generator drops modes: {told}")
    memory = result["memorisation"]
    if memory["nearer"] > MEMORISING:
        found.append(
            f"the generator may copy {memory['real']}: a sample is nearer to one than {memory['unseen']} are in "
            f"{memory['nearer']:.0%} of comparisons; look at the picture of nearest neighbours"
        )
    if result["recall"] < LOW_RECALL:
        found.append(
            f"recall {result['recall']:.3f}: most real images lie near no sample, so modes are missing or the samples "
            "are unlike the data"
        )
    return found
