"""Modes of stacked digits: which of the 1,000 combinations samples show, according to a StackedClassifier.

The count among 26,000 samples and the KL divergence follow Metz et al. 2017 (arXiv 1611.02163), section 3.3.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datasets import Images
from settings.config import STACKED, Config

from ..inputs.sampling import Source

NUM_SAMPLES = 26_000  # for any number of samples in the other scores


def frequencies(config: Config, train: Images | None) -> Tensor | None:
    """The frequencies (1000,) of combinations among the training images. None for other data sets."""
    if train is None or config.dataset not in STACKED:
        return None
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    return counts.double() / len(train.labels)


def wanted(known: Tensor | None, source: Source, drawn: int) -> int:
    """The number of samples to draw if `drawn` are scored: enough to count modes."""
    return drawn if known is None else max(drawn, min(NUM_SAMPLES, source.count or NUM_SAMPLES))


def count(answers: Tensor, known: Tensor) -> dict[str, Any]:
    """Count the modes of the first 26,000 samples by their logits (N, k): {modes: {found, of, kl, num_samples}}.

    kl is KL(samples || data) in nats: the sum of q log(q / p), with q the frequencies of the samples' modes and p (k,)
    those of the data, all above 0. A mode without samples adds 0, the limit of q log q.
    """
    modes = answers[:NUM_SAMPLES].argmax(1)
    q = torch.bincount(modes, minlength=len(known)).double() / len(modes)
    kl = torch.xlogy(q, q / known).sum().item()
    return {"modes": {"found": int((q > 0).sum()), "of": len(known), "kl": kl, "num_samples": len(modes)}}


def words(scores: Mapping[str, Any]) -> list[str]:
    """The modes found, for a line of scores; [] if they were not counted."""
    found = scores.get("modes")
    return [f"{found['found']:,} of {found['of']:,} modes (KL {found['kl']:z.3f})"] if found else []
