"""With which probability D's images are augmented: that of the settings, or as ADA moves it (Karras et al. 2020)."""

import torch
from torch import Tensor

from losses import boundary
from models import augmentation
from settings.config import Config
from utils.distributed import average

from .state import State

TARGET = 0.6  # of the mean sign of D at real images
IMAGES = 500_000  # real ones, in which p can go from 0 to 1


def draw(state: State, count: int) -> Tensor | None:
    """What the augmentation of so many images takes, from the run's stream; None, and nothing drawn, without one."""
    return augmentation.draw(count, state.augment_p, state.random) if state.objective.augment else None


def adapt(state: State, config: Config, real_logits: Tensor, fake_logits: Tensor) -> None:
    """Move p after an update of D, under --augment_p adaptive, by D's logits in it: (N, 1), this rank's share."""
    if config.augment_p == "adaptive":
        state.augment_p = adapted(state.augment_p, config.loss, real_logits, fake_logits, config.batch_size)


def adapted(p: Tensor, loss: str, real_logits: Tensor, fake_logits: Tensor, images: int) -> Tensor:
    """p, a scalar, after so many more real images: Karras et al. 2020, section 3.1, r_t, after each update of D.

    The paper moves p every fourth update, by the mean over the four. The sign is that of the logit less the loss's
    boundary; where only differences count, as under wasserstein, less the middle of the means of all real and
    generated images. All means are over all ranks. p is a whole number of images over IMAGES, and rounded to one: not
    every device has float64, and float32 would drift.
    """
    means = average(torch.stack([real_logits.mean(), fake_logits.mean()]))
    sign = average((real_logits - boundary(loss, *means)).sign().sum()) / len(real_logits)
    return ((p * IMAGES).round() + (sign - TARGET).sign() * images).clamp(0, IMAGES) / IMAGES
