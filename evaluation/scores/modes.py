"""Stacked digits: which of the 1,000 combinations samples are of, by the answers of a StackedClassifier.

The count among 26,000 samples and the KL divergence are those of Metz et al. 2017 (arXiv 1611.02163), section 3.3.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datasets import Images
from settings.config import STACKED, Config

from ..inputs.sampling import Source

NUM_SAMPLES = 26_000  # always, however many are scored otherwise


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


def words(scores: Mapping[str, Any]) -> list[str]:
    """What was found, for a line of scores; [] where nothing was counted."""
    found = scores.get("modes")
    return [f"{found['found']:,} of {found['of']:,} modes (KL {found['kl']:z.3f})"] if found else []
