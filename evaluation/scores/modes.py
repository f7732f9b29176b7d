"""Stacked digits: which of the 1,000 combinations samples are of, by a classifier of single digits on each channel.

The count among 26,000 samples and the KL divergence are those of Metz et al. 2017 (arXiv 1611.02163), section 3.3.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datasets import Images, load_split
from datasets.stacked import of_digits
from settings.config import STACKED, Config

from ..inputs import features
from ..inputs.features import Classifier, Say
from ..inputs.sampling import Source

NUM_SAMPLES = 26_000  # always, however many are scored otherwise


class StackedClassifier(nn.Module):
    """A classifier of single digits on red, green and blue: uint8 stacks (N, 3, S, S) -> (N, 3 * 128), (N, 1000).

    The features are the three channels' beside each other. The logits are the logarithms of the combinations'
    probabilities, which are products of the digits': the greatest is of the three digits that the classifier sees.
    """

    name = "classifier of single digits on each channel"
    warning = None

    def __init__(self, digit: Classifier) -> None:
        super().__init__()
        self.digit, self.resize, self.sha256 = digit, digit.resize, digit.sha256
        seen = digit.examined  # a stack's digits are independent of each other, and so are the mistakes
        self.examined = {"split": seen["split"], "accuracy": seen["accuracy"] ** 3}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found, logits = self.digit(images.flatten(0, 1).unsqueeze(1))
        red, green, blue = logits.log_softmax(1).unflatten(0, (-1, 3)).unbind(1)
        joint = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        return found.unflatten(0, (-1, 3)).flatten(1), joint.flatten(1)


def load_classifier(
    config: Config, train: Images | None, device: torch.device, say: Say
) -> Classifier | StackedClassifier:
    """The classifier of a data set: see features.load_classifier(); of stacks, that of the digits they are made of."""
    if config.dataset not in STACKED:
        return features.load_classifier(config, train, device, say)
    digits = of_digits(config)
    return StackedClassifier(features.load_classifier(digits, load_split(digits), device, say)).eval()


def frequencies(config: Config, train: Images | None) -> Tensor | None:
    """How often each combination is among all training images (1000,), by their labels; None of other data sets."""
    if train is None or config.dataset not in STACKED:
        return None
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    return counts.double() / len(train.labels)


def wanted(known: Tensor | None, source: Source, drawn: int) -> int:
    """How many samples to look at where `drawn` are scored: as many more as modes are counted among."""
    return drawn if known is None else max(drawn, min(NUM_SAMPLES, source.count or NUM_SAMPLES))


def count(answers: Tensor, known: Tensor) -> dict[str, Any]:
    """{modes: {found, of, kl, num_samples}} of the first 26,000 samples, by their logits (N, k).

    kl is KL(samples || data) in nats: the sum of q log(q / p), q the frequencies of the samples' modes and p (k,) those
    of the data, all above 0. A mode without samples adds 0, the limit of q log q.
    """
    modes = answers[:NUM_SAMPLES].argmax(1)
    q = torch.bincount(modes, minlength=len(known)).double() / len(modes)
    kl = torch.xlogy(q, q / known).sum().item()
    return {"modes": {"found": int((q > 0).sum()), "of": len(known), "kl": kl, "num_samples": len(modes)}}


def facts(known: Tensor | None) -> dict[str, Any]:
    """What a score's protocol says of modes; {} where they are not counted."""
    if known is None:
        return {}
    return {
        "modes_samples": NUM_SAMPLES,
        "modes_kl": "KL(samples || data) in nats, by the labels of all training images",
    }


def words(scores: Mapping[str, Any]) -> list[str]:
    """What was found, for a line of scores; [] where nothing was counted."""
    found = scores.get("modes")
    return [f"{found['found']:,} of {found['of']:,} modes (KL {found['kl']:z.3f})"] if found else []
