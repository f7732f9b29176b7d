"""Shuffled batches from images on the training device or, if they do not fit, in host memory."""

import collections
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHARE = 0.5  # of a CUDA device's free memory, at most, for images
AHEAD = 2  # batches kept ready in pinned memory if the images do not fit


def derived_seed(*numbers: int) -> int:
    """Derive a 63-bit seed from whole numbers. Other numbers give another seed, but trailing zeros do not count."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether the images should move to the device as a whole. On a CPU they stay where they are, even in a file."""
    return device.type != "cuda" or images.is_cuda or images.numel() <= SHARE * torch.cuda.mem_get_info(device)[0]


class Batches:
    """An endless stream of shuffled batches without replacement, whose position is two numbers.

    The order in an epoch depends only on the seed and the epoch, so a run resumes from (epoch, position). A batch at
    the end of an epoch is completed from the next one. device: of the batches (default: that of the images). If the
    images do not fit on it, a thread cuts the next batches in the background. labels: (N,) int64, if the run is
    conditional.
    """

    epoch: int
    position: int  # in the epoch's order, of the first image that next() has not returned yet
    _cut_epoch: int  # the same for the first image that is not cut yet
    _cut_position: int

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        seed: int,
        device: torch.device | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.device = device or images.device
        here = fits(images, self.device)
        self.images, self.batch_size, self.seed = images.to(self.device) if here else images, batch_size, seed
        self.labels = None if labels is None else labels.to(self.device)
        self._thread = None if here else ThreadPoolExecutor(1)
        self._coming: collections.deque[tuple[int, int, Tensor, Callable[[], Tensor]]] = collections.deque()
        self._go_to(0, 0)

    def _shuffle(self, epoch: int) -> Tensor:
        seed = derived_seed(self.seed, epoch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        if self.images.is_cuda:  # from pinned memory, so that the step does not wait for the transfer
            return order.pin_memory().to(self.images.device, non_blocking=True)
        return order.to(self.images.device)  # blocking, once an epoch: else MPS and XPU would read freed memory

    def next(self) -> tuple[Tensor, Tensor | None]:
        """Return the next batch on the device: images (batch_size, C, H, W) uint8, and labels (batch_size,) or None."""
        while len(self._coming) <= (AHEAD if self._thread else 0):
            indices = self._indices()
            cut: Callable[[], Tensor] = partial(self._cut, indices)
            if self._thread:
                cut = self._thread.submit(cut).result
            self._coming.append((self._cut_epoch, self._cut_position, indices, cut))
        self.epoch, self.position, indices, cut = self._coming.popleft()
        labels = None if self.labels is None else self.labels[indices.to(self.device, non_blocking=True)]
        return cut().to(self.device, non_blocking=True), labels

    def draw_labels(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw labels (count,) with the class frequencies of the images. Returns None if the images have no labels."""
        if self.labels is None:
            return None
        places = torch.randint(len(self.labels), (count,), generator=generator, device=self.labels.device)
        return self.labels[places]

    def _indices(self) -> Tensor:
        """Return the indices of the next batch to cut, and advance the position. It may be ahead of next()."""
        parts, missing = [], self.batch_size
        while missing:
            if self._cut_position >= len(self.images):
                self._cut_epoch, self._cut_position = self._cut_epoch + 1, 0
                self._order = self._shuffle(self._cut_epoch)
            part = self._order[self._cut_position : self._cut_position + missing]
            parts.append(part)
            self._cut_position += len(part)
            missing -= len(part)
        return torch.cat(parts)

    def _cut(self, indices: Tensor) -> Tensor:
        """Copy the images with these indices, on the device or into pinned memory."""
        if not self._thread:
            return self.images.index_select(0, indices)
        batch = torch.empty(
            len(indices), *self.images.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        return torch.index_select(self.images, 0, indices, out=batch)

    def _go_to(self, epoch: int, position: int) -> None:
        """Move the stream: the next batch starts at this position."""
        self.epoch, self.position = self._cut_epoch, self._cut_position = epoch, position
        self._coming.clear()
        self._order = self._shuffle(epoch)

    def change_seed(self, seed: int) -> None:
        """Shuffle with another seed, from the current position on."""
        self.seed = seed
        self._go_to(self.epoch, self.position)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where state_dict() was called. Raises ValueError if the state holds invalid numbers."""
        epoch, position, seed = state["epoch"], state["position"], state.get("seed", self.seed)
        if not all(type(number) is int and 0 <= number < 2**63 for number in (epoch, position, seed)):
            raise ValueError(f"epoch, position and seed must be whole numbers, not {epoch}, {position}, {seed}")
        self.seed = seed
        self._go_to(epoch, position)


def steps_of(num_epochs: int, num_images: int, batch_size: int, n_dis: int) -> int:
    """The number of G's updates in `num_epochs` passes of D over the data set."""
    return max(1, math.ceil(num_epochs * num_images / (batch_size * n_dis)))
