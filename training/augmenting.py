"""The probability p of augmenting D's images: fixed, or adapted by ADA (Karras et al. 2020)."""

import torch
from torch import Tensor

from losses import boundary
from models import augmentation
from settings.config import Config
from utils.distributed import average

from .state import State

TARGET = 0.6  # for the mean sign of D's logits on real images
IMAGES = 500_000  # real images that p needs to go from 0 to 1


def draw(state: State, count: int) -> Tensor | None:
    """Draw random numbers to augment `count` images from the run's stream; None without augmentation."""
    return augmentation.draw(count, state.augment_p, state.random) if state.objective.augment else None


def adapt(state: State, config: Config, real_logits: Tensor, fake_logits: Tensor) -> None:
    """Under --augment_p adaptive, move p by this rank's logits (N, 1) of an update."""
    if config.augment_p == "adaptive":
        state.augment_p = adapted(state.augment_p, config.loss, real_logits, fake_logits, config.batch_size)


def adapted(p: Tensor, loss: str, real_logits: Tensor, fake_logits: Tensor, images: int) -> Tensor:
    """The scalar p after `images` more real images, by r_t of Karras et al. 2020, section 3.1.

    It moves after each update of D; in the paper after every fourth, by the mean over the four. The sign is that of the
    logit minus the loss's boundary. If only differences count, as under wasserstein, the boundary is the midpoint of
    the mean logits of real and generated images. All means are over all ranks. p * IMAGES is rounded to a whole number:
    not every device has float64, and float32 would drift.
    """
    means = average(torch.stack([real_logits.mean(), fake_logits.mean()]))
    sign = average((real_logits - boundary(loss, *means)).sign().sum()) / len(real_logits)
    return ((p * IMAGES).round() + (sign - TARGET).sign() * images).clamp(0, IMAGES) / IMAGES
