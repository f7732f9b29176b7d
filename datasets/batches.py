"""Batches cut from images on the training device, or beside it where they do not fit: no per-image Python."""

import collections
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHARE = 0.5  # of a CUDA device's free memory, that images may take
AHEAD = 2  # batches that lie ready in pinned memory where they take more


def derived_seed(*numbers: int) -> int:
    """A seed of 63 bits from whole numbers, unlike that of any other ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether images are to lie on a device as a whole. On a CPU they stay where they are, be it in a file."""
    return device.type != "cuda" or images.is_cuda or images.numel() <= SHARE * torch.cuda.mem_get_info(device)[0]


class Batches:
    """An endless stream of shuffled batches without replacement, whose position is two numbers.

    The order of an epoch is a function of the seed and the epoch alone, so that a run resumes from (epoch, position).
    A batch at the end of an epoch is filled up from the next. device: where batches are wanted (default: where the
    images are). Where the images are too many for it, a thread cuts the next batches meanwhile. labels (N,) int64: of a
    conditional run.
    """

    epoch: int
    position: int  # in the epoch's order, of the first image that was not handed out yet
    _cut_epoch: int  # the same of the first that was not cut
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
        return order.to(self.images.device)  # waited for, once an epoch: MPS and XPU would read freed memory

    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch, on the device: images (batch_size, C, H, W) uint8, and their labels (batch_size,)."""
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
        """Labels (count,) for samples, each class as often as among the images; None where there are no labels."""
        if self.labels is None:
            return None
        places = torch.randint(len(self.labels), (count,), generator=generator, device=self.labels.device)
        return self.labels[places]

    def _indices(self) -> Tensor:
        """The numbers of the next images that are cut; those before may not have been asked for yet."""
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
        """The images of these numbers: on the device, or in pinned memory on their way to it."""
        if not self._thread:
            return self.images.index_select(0, indices)
        batch = torch.empty(
            len(indices), *self.images.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        return torch.index_select(self.images, 0, indices, out=batch)

    def _go_to(self, epoch: int, position: int) -> None:
        """Have the next batch be that of this place."""
        self.epoch, self.position = self._cut_epoch, self._cut_position = epoch, position
        self._coming.clear()
        self._order = self._shuffle(epoch)

    def change_seed(self, seed: int) -> None:
        """Another order, from the current epoch on."""
        self.seed = seed
        self._go_to(self.epoch, self.position)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where state_dict() was taken. ValueError where that was no such stream."""
        epoch, position, seed = state["epoch"], state["position"], state.get("seed", self.seed)
        if not all(type(number) is int and 0 <= number < 2**63 for number in (epoch, position, seed)):
            raise ValueError(f"no epoch, position and seed: {epoch}, {position}, {seed}")
        self.seed = seed
        self._go_to(epoch, position)


def steps_of(num_epochs: int, num_images: int, batch_size: int, n_dis: int) -> int:
    """G's updates in num_epochs passes of D over the data set."""
    return max(1, math.ceil(num_epochs * num_images / (batch_size * n_dis)))
