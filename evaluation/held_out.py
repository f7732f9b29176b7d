"""Scores of held-out real images, as a baseline. A perfect generator would reach about the same.

The test images are scored against a protocol's real images as if they were samples. If those are the test
images themselves, training images are scored instead, as many as the protocol takes samples.
"""

from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError
from utils.threads import all_cores

from .inputs.features import Extractor
from .inputs.reference import Real, Reference
from .protocol import Plan
from .scores import manifold, metrics, modes
from .scores.registry import SCORES

STAND_INS = {"train": "test", "test": "train"}  # real images compared with -> those scored as samples


def scores_of_real(
    plan: Plan, real: Real, extractor: Extractor, frequencies: Tensor | None = None
) -> dict[str, Any] | None:
    """Score held-out real images under a Plan, or load their scores from the cache. Returns None on ranks other than 0.

    frequencies: of the modes, if they are counted. If there are no such images, or they cannot be scored, the entry has
    a reason instead of scores: an error here must not prevent the samples' scores.
    """
    other = STAND_INS[plan.full.split]
    what = f"{'training' if other == 'train' else other} images"
    try:
        stand_ins = real.reference(other, extractor)
    except UserError as error:
        return {"what": what, "reason": str(error)}
    reference = real.reference(plan.full.split, extractor)
    if reference is None or stand_ins is None:
        return None
    # In a fixed random order: images may be sorted, and the Inception Score splits them.
    order = torch.randperm(real.count(other), generator=torch.Generator().manual_seed(0))
    chosen = order if other == "test" else order[: plan.num_samples]
    entry = {"what": what, "num": len(chosen)}
    facts = entry | {
        "data_sha256": real.sha256(other),
        "scores": [name for name, score in SCORES.items() if score.by],
        "kid_subsets": metrics.KID_SUBSETS,
        "density_coverage_neighbours": manifold.FARTHEST,
    }

    def make() -> dict[str, Any]:
        assert stand_ins is not None and stand_ins.logits is not None
        with all_cores():
            return entry | scores(stand_ins.features[chosen], stand_ins.logits[chosen], reference, frequencies)

    try:
        return reference.once("held_out", facts, make, f"the scores of {what} are")
    except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        return {"what": what, "reason": f"they could not be scored: {error}"}


def scores(features: Tensor, logits: Tensor, reference: Reference, frequencies: Tensor | None) -> dict[str, Any]:
    """Compute all scores of images, given their features (N, d) and logits (N, k), against a Reference."""
    found: dict[str, Any] = {
        "inception_score": metrics.inception_score(logits),
        **metrics.against(features, reference),
        **metrics.neighbour_scores(features, reference),
    }
    if frequencies is not None and len(logits) >= modes.NUM_SAMPLES:
        found |= modes.count(logits, frequencies)
    return found
