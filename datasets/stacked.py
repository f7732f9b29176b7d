"""Stacked digits: three random digits as red, green and blue, 1,000 classes (Metz et al. 2017, arXiv 1611.02163).

The data set measures mode collapse: one can count which of the 1,000 combinations a generator draws.
"""

import dataclasses

import torch

from settings.config import STACKED, Config

from .batches import derived_seed
from .images import Images

COUNTS = {"train": 128_000, "test": 26_000}  # of Metz et al.; as many as the samples that are scored
SEED = 2017  # of the choice of digits, the same for every run


def of_digits(config: Config) -> Config:
    """The configuration of the single digits that a stacked data set is made of."""
    return dataclasses.replace(config, dataset=STACKED[config.dataset], channels=1)


def stack(digits: Images, split: str) -> Images:
    """Stack a split's grey digits (N, 1, S, S), drawn uniformly with replacement: (128,000 or 26,000, 3, S, S).

    The label of red 1, green 2 and blue 3 is 123, and its class "123".
    """
    generator = torch.Generator().manual_seed(derived_seed(SEED, [*COUNTS].index(split)))
    chosen = torch.randint(len(digits.images), (COUNTS[split], 3), generator=generator)
    base = len(digits.classes)
    labels = digits.labels[chosen] @ torch.tensor([base**2, base, 1])
    return Images(digits.images[chosen, 0], labels, tuple(f"{label:03}" for label in range(base**3)))
