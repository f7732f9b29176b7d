"""Samples to score, in blocks of 64 images, and their features. Under torchrun the ranks share the blocks.

Blocks are always drawn and processed whole. So sample i and its features depend only on the generator, the seed and i,
not on the number of samples, the number of processes or a batch size.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from datasets import Classes, derived_seed, quantise
from models import folded
from models.conditional import given
from utils.console import progress
from utils.distributed import gather, rank, world_size
from utils.errors import UserError

BLOCK = 64  # images; also torch-fidelity's default batch size


def latents(seed: int, start: int, count: int, z_dim: int, truncation: float = math.inf) -> Tensor:
    """Draw z ~ N(0, I) for samples start, start + 1, ...: (count, z_dim), each from its own seed.

    truncation: coordinates farther than this from 0 are drawn again (Brock et al. 2019, section 3.1).
    """
    z = torch.empty(count, z_dim)
    generator = torch.Generator()
    for i, row in enumerate(z, start):
        torch.randn(z_dim, generator=generator.manual_seed(derived_seed(seed, i)), out=row)
        while (outside := row.abs() > truncation).any():
            row[outside] = torch.randn(int(outside.sum()), generator=generator)
    return z


@dataclasses.dataclass(eq=False)
class Generated:
    """The endless, quantised samples of a generator in eval mode, drawn with folded weights.

    classes: those of a conditional generator. label: the class of all samples; without it, each has its own.
    """

    G: nn.Module
    z_dim: int
    seed: int
    device: torch.device
    truncation: float = math.inf
    classes: Classes | None = None
    label: int | None = None
    count = None

    def __post_init__(self) -> None:
        self.G = folded(self.G)

    def labels(self, start: int, count: int) -> Tensor | None:
        """The labels of samples start, start + 1, ...: (count,) int64, or None if the generator is unconditional."""
        if self.label is not None:
            return torch.full((count,), self.label)
        return self.classes.labels(self.seed, start, count) if self.classes is not None else None

    @torch.inference_mode()
    def block(self, number: int) -> Tensor:
        """Samples 64 * number and on: (64, C, H, W) uint8, on the CPU. Raises UserError if G's output is not finite."""
        z = latents(self.seed, BLOCK * number, BLOCK, self.z_dim, self.truncation)
        labels = self.labels(BLOCK * number, BLOCK)
        images = self.G(*(part.to(self.device) for part in given(z, labels)))
        if not images.isfinite().all():  # as uint8 they would be black images with a score
            raise UserError("the generator draws NaN or infinity: its weights are broken")
        return quantise(images).cpu()


class Given:
    """Existing images (N, C, H, W) uint8: those of a data set, or another program's samples.

    order: the indices of the images to use, in order (default: all). The images are not copied, because memory may not
    hold them all.
    """

    classes = None

    def __init__(self, images: Tensor, order: Tensor | None = None) -> None:
        self.images, self.order, self.count = images, order, len(images if order is None else order)

    def shuffled(self) -> "Given":
        """The same images in a fixed random order. Folders are often sorted by kind."""
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(0))
        return Given(self.images, order if self.order is None else self.order[order])

    def labels(self, start: int, count: int) -> None:
        """Return None: existing images were not drawn for a class."""

    def block(self, number: int) -> Tensor:
        """Images 64 * number and on: (64, C, H, W) uint8, fewer in the last block."""
        part = slice(BLOCK * number, BLOCK * (number + 1))
        return self.images[part] if self.order is None else self.images[self.order[part]]


Source = Generated | Given


def images_at(source: Source, indices: Iterable[int]) -> Iterator[Tensor]:
    """Yield the source's images with these indices, in this order: (C, H, W) uint8 each. Fastest if sorted."""
    for number, group in itertools.groupby(indices, lambda i: i // BLOCK):
        block = source.block(number)
        yield from (block[i % BLOCK] for i in group)


def in_order(source: Source, least: int, in_parts: bool) -> tuple[Source, dict[str, bool]]:
    """Return the source in the order to score it, and a record of this order.

    Existing images may be sorted. So they are shuffled if a score uses only the first `least` of them, or (in_parts)
    splits them without shuffling.
    """
    if not isinstance(source, Given) or source.count is None:
        return source, {}
    shuffled = in_parts or least < source.count
    return source.shuffled() if shuffled else source, {"samples_shuffled": shuffled}


@torch.inference_mode()
def extract(
    networks: Sequence[nn.Module], source: Source, count: int, device: torch.device, label: str
) -> list[Tensor] | None:
    """Run networks on a source's first `count` images, in one pass.

    Each network returns (features, logits). On rank 0, returns these as (count, d) and (count, k) float32 on the CPU,
    network by network; on other ranks, None. label: of the progress bar.
    """
    blocks = math.ceil(count / BLOCK)
    turns = math.ceil(blocks / world_size())
    # Each turn deals a block to every rank. If the last turn lacks blocks, the last block is repeated.
    own = [min(turn * world_size() + rank(), blocks - 1) for turn in range(turns)]
    found: list[Tensor] = []
    bar = progress(own, label, unit_scale=BLOCK * world_size(), unit="image", disable=rank() > 0)
    for turn, number in enumerate(bar):
        outputs = _look(networks, source.block(number), device)
        found = found or [torch.empty(turns, BLOCK, output.size(1)) for output in outputs]
        for rows, output in zip(found, outputs):
            rows[turn, : len(output)] = output
    gathered = [rows for rows in map(gather, found) if rows is not None]  # (ranks, turns, 64, d) each, on rank 0
    return None if rank() > 0 else [rows.transpose(0, 1).flatten(0, 2)[:count] for rows in gathered]


def _look(networks: Sequence[nn.Module], block: Tensor, device: torch.device) -> list[Tensor]:
    """The networks' outputs for a block of images: (n, d), (n, k), n rounded up to whole batches."""
    at_once = BLOCK // 2 if device.type == "cpu" else BLOCK  # the same features on a CPU, in half the memory
    outputs = []
    for part in block.to(device).split(at_once):
        missing = at_once - len(part)  # the last batch is filled up, because a batch's size can change the last bits
        batch = torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part
        outputs.append([output for network in networks for output in network(batch)])
    return [torch.cat(parts) for parts in zip(*outputs)]
