"""What real images get that the generator was not to imitate: beside a score, it says what a good one is.

The test images are scored against a protocol's real images as if they were samples; where the protocol compares with
the test images themselves, as many training images as it takes samples. No sample changes this: it is kept beside the
reference, for all checkpoints.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils.distributed import broadcast, rank
from utils.threads import all_cores

from ..inputs.reference import Reference
from . import metrics, modes

STAND_INS = {"train": "test", "test": "train"}  # which split stands in for the samples, against which


def chosen(split: str, available: int, num_samples: int) -> Tensor:
    """The numbers of a split's images that stand in for samples: all test images, or a fixed part of the training's.

    They are in a random order, always the same: images may be sorted, and the Inception Score splits them.
    """
    order = torch.randperm(available, generator=torch.Generator().manual_seed(0))
    return order if split == "test" else order[:num_samples]


def load_or_score(
    reference: Reference | None,
    facts: dict[str, Any],
    take: Callable[[], list[Tensor] | None],
    frequencies: Tensor | None = None,
) -> dict[str, Any] | None:
    """The scores of held-out images against a Reference: kept ones, or made now. On rank 0; None on the others.

    facts: the entry's own first ones, and what else the scores depend on. take() gives features (N, d) and logits
    (N, k), on rank 0, and is called on every rank or on none. frequencies: of the
    modes, where they are counted. No trouble here stands in the way of the samples' scores: then the entry has a reason
    in the place of scores.
    """
    beside = reference and reference.beside
    found = beside.load("held_out", facts) if beside else None
    if broadcast(found is not None):
        return found
    taken = take()
    if rank() > 0 or reference is None or taken is None:
        return None
    entry = {name: facts[name] for name in ("what", "num")}
    try:
        with all_cores():
            entry |= scores(taken[0], taken[1], reference)
            if frequencies is not None and len(taken[1]) >= modes.NUM_SAMPLES:
                entry |= modes.count(taken[1], frequencies)
    except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        return {"what": facts["what"], "reason": f"they could not be scored: {error}"}
    if beside:
        beside.keep("held_out", facts, entry, f"the scores of {facts['what']} are")
    return entry


def scores(features: Tensor, logits: Tensor, reference: Reference) -> dict[str, Any]:
    """All scores of images by their features (N, d) and logits (N, k) against a Reference."""
    return {
        "inception_score": metrics.inception_score(logits),
        **metrics.against(features, reference),
        **metrics.neighbour_scores(features, reference),
    }
