"""What the two updates optimise: the losses and regularizers of a configuration, and the batches that they take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from losses import LOSSES, REGULARIZERS, Regularizer
from models.spectral_norm import iteration
from utils.config import Config
from utils.distributed import local
from utils.precision import FULL, Precision


class Batch(NamedTuple):
    """What an update takes, all random numbers in it drawn; None where it needs none of that.

    z: latents (N, z_dim). real: images (N, C, H, W) in [-1, 1]. alpha (N, 1, 1, 1) in [0, 1]: where the gradient
    penalty looks, between real and fake. fake: samples of these z, which D's update draws itself.
    """

    z: Tensor
    real: Tensor | None = None
    alpha: Tensor | None = None
    fake: Tensor | None = None

    def local(self) -> "Batch":
        """This rank's share of a global batch."""
        return Batch._make(None if field is None else local(field) for field in self)

    def chunk(self, count: int) -> list["Batch"]:
        """The batch in so many parts."""
        fields = ([None] * count if field is None else field.chunk(count) for field in self)
        return [Batch._make(part) for part in zip(*fields, strict=True)]


@dataclass(frozen=True)
class Objective:
    """The losses of D and of G, and how D is judged by.

    d_loss(real_logits, fake_logits) and g_loss(fake_logits), or g_loss(fake_logits, real_logits) where G's batch has
    real images. regularizers: of D, each with its weight. joint: one forward of D for real and fake images, so one
    power iteration an update as in the paper's algorithm 1; batch norm in D needs one for each. accumulate: parts, of
    one size, in which a batch is computed; u and v move in the first alone, and batch norm takes each part's own
    statistics.
    """

    d_loss: Callable[..., Tensor]
    g_loss: Callable[..., Tensor]
    regularizers: tuple[tuple[Regularizer, float], ...] = ()
    joint: bool = True
    accumulate: int = 1

    @classmethod
    def of(cls, config: Config) -> "Objective":
        """That of a run."""
        regularizer = REGULARIZERS[config.regularizer]
        regularizers = ((regularizer, config.regularizer_weight or regularizer.default_weight),)
        return cls(*LOSSES[config.loss], regularizers, "batch" not in config.d_norm, config.accumulate)

    def judge(self, D: nn.Module, *images: Tensor | None, precision: Precision = FULL) -> tuple[Tensor, ...]:
        """D's logits (N, 1) of each of these batches of images (N, C, H, W), of which some may be None, for none."""
        seen = [part for part in images if part is not None]
        if self.joint and len(seen) > 1:
            return precision.call(D, torch.cat(seen)).split([len(part) for part in seen])
        return tuple(precision.call(D, part) for part in seen)

    def penalty(self, D: nn.Module, batch: Batch) -> Tensor | float:
        """What the regularizers add to D's loss, in full precision."""
        penalties = [(found.penalty, weight) for found, weight in self.regularizers if found.penalty]
        if not penalties:
            return 0.0
        with iteration(D, False):  # their forwards are of the same update
            return sum(weight * penalty(D, batch.real, batch.fake, batch.alpha) for penalty, weight in penalties)

    def project(self, D: nn.Module) -> None:
        """What the regularizers do to D's weights after an update."""
        for regularizer, weight in self.regularizers:
            if regularizer.project:
                regularizer.project(D, weight)
