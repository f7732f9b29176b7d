"""Batches cut from images on the training device: no worker processes and no per-image Python."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derived_seed(*numbers: int) -> int:
    """A seed of 63 bits from whole numbers, unlike that of any other ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


class Batches:
    """An endless stream of shuffled batches without replacement, whose position is two numbers.

    The order of an epoch is a function of the seed and the epoch alone, so that a run resumes from (epoch, position).
    A batch at the end of an epoch is filled up from the next. labels (N,) int64, on the images' device: of a
    conditional run.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int, labels: Tensor | None = None) -> None:
        self.images, self.batch_size, self.seed, self.labels = images, batch_size, seed, labels
        self.epoch = self.position = 0
        self._order = self._shuffle(0)

    def _shuffle(self, epoch: int) -> Tensor:
        seed = derived_seed(self.seed, epoch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        if self.images.is_cuda:  # from pinned memory, so that the step does not wait for the transfer
            return order.pin_memory().to(self.images.device, non_blocking=True)
        return order

    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch, on the images' device: images (batch_size, C, H, W) uint8, and their labels (batch_size,)."""
        parts, missing = [], self.batch_size
        while missing:
            if self.position >= len(self.images):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffle(self.epoch)
            part = self._order[self.position : self.position + missing]
            parts.append(part)
            self.position += len(part)
            missing -= len(part)
        chosen = torch.cat(parts)
        return self.images.index_select(0, chosen), None if self.labels is None else self.labels[chosen]

    def draw_labels(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Labels (count,) for samples, each class as often as among the images; None where there are no labels."""
        if self.labels is None:
            return None
        places = torch.randint(len(self.labels), (count,), generator=generator, device=self.labels.device)
        return self.labels[places]

    def change_seed(self, seed: int) -> None:
        """Another order, from the current epoch on."""
        self.seed = seed
        self._order = self._shuffle(self.epoch)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where state_dict() was taken. ValueError where that was no such stream."""
        epoch, position, seed = state["epoch"], state["position"], state.get("seed", self.seed)
        if not all(type(number) is int and 0 <= number < 2**63 for number in (epoch, position, seed)):
            raise ValueError(f"no epoch, position and seed: {epoch}, {position}, {seed}")
        self.epoch, self.position, self.seed = epoch, position, seed
        self._order = self._shuffle(self.epoch)


def steps_of(num_epochs: int, num_images: int, batch_size: int, n_dis: int) -> int:
    """G's updates in num_epochs passes of D over the data set."""
    return max(1, math.ceil(num_epochs * num_images / (batch_size * n_dis)))
