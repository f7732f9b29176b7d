"""Images: (N, C, H, W) uint8, brought to a run's size and channels, and to floats and back."""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.console import announced
from utils.errors import refuse_if

SHUFFLED = 20180216  # the seed of the order in which --num_images takes images: the same for every run
RESIZE_CHUNK = 2048  # images resized at once, to bound the memory of their float copies


class Origin(NamedTuple):
    """What was found of files when they were decoded, kept beside their pixels."""

    sha256: str  # of the pixels and labels
    sizes: dict[str, Any]  # of the pictures: smallest, largest and commonest [width, height], different, enlarged
    skipped: dict[str, str]  # files that could not be read -> why
    notes: tuple[str, ...]  # sentences about what was taken and how


class Images(NamedTuple):
    """One split: images (N, C, H, W) uint8, labels (N,) int64 (-1: unknown), and the classes' names.

    The images may be a file's, mapped into memory and read-only. origin: of those that come from files; it holds for
    these images and labels alone.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    origin: Origin | None = None

    def sha256(self) -> str:
        """A hash of all pixels and labels: whether two runs saw the same data."""
        if self.origin:
            return self.origin.sha256
        with announced("computing the hash of the images"):
            digest = hashlib.sha256(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def is_of(self, sha256: str | None) -> bool:
        """Whether a hash is of these images, whose labels earlier versions may have missed, or ordered as text."""
        if sha256 == self.sha256() or not (self.origin and self.classes):
            return sha256 == self.sha256()
        order = torch.tensor(sorted(range(len(self.classes)), key=self.classes.__getitem__))
        ways = torch.full_like(self.labels, -1), order.argsort()[self.labels]
        return sha256 in [self._replace(labels=labels, origin=None).sha256() for labels in ways]


def first_of(total: int, count: int) -> Tensor:
    """Which of `total` images are the first `count` of a fixed shuffle: (count,) int64. UserError where too many."""
    refuse_if(count > total, f"num_images {count:,} is more than the {total:,} training images that there are")
    return torch.randperm(total, generator=torch.Generator().manual_seed(SHUFFLED))[:count]


def spaced(total: int, count: int) -> Tensor:
    """The numbers of `count` of `total` images, evenly spaced, or of all: a folder's images are sorted by class."""
    return torch.arange(min(count, total)) * total // min(count, total)


def trained_on(images: Images, count: int | None) -> Images:
    """The images that --num_images trains on, of a training split; all of them without it."""
    if count is None:
        return images
    chosen = first_of(len(images.images), count)
    part = Images(images.images[chosen], images.labels[chosen], images.classes)
    return part._replace(origin=images.origin and images.origin._replace(sha256=part.sha256()))


def fit(images: Tensor, image_size: int, channels: int) -> Tensor:
    """Bring raw uint8 images (N, C, H, W) to (N, channels, image_size, image_size).

    28 to 32 pixels is zero padding, the field's way with MNIST; any other size is antialiased bilinear resizing of the
    shorter side and a centre crop. Grey from colour is ITU-R 601 luma.
    """
    if images.size(1) != channels:
        images = to_grey(images) if channels == 1 else images.expand(-1, channels, -1, -1)
    height, width = images.shape[2:]
    if (height, width) == (28, 28) and image_size == 32:
        return F.pad(images, (2, 2, 2, 2))
    if (height, width) == (image_size, image_size):
        return images.contiguous()
    from torchvision.transforms.v2 import functional as TF  # takes seconds, and not every run resizes

    fitted = torch.empty(len(images), channels, image_size, image_size, dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), fitted.split(RESIZE_CHUNK)):
        out.copy_(TF.center_crop(TF.resize(chunk, [image_size], antialias=True), [image_size, image_size]))
    return fitted


def to_grey(images: Tensor) -> Tensor:
    """Colour to grey by ITU-R 601 luma, rounded as Pillow does: (N, 3, H, W) -> (N, 1, H, W) uint8."""
    grey = torch.empty(len(images), 1, *images.shape[2:], dtype=torch.uint8)
    for chunk, out in zip(images.split(RESIZE_CHUNK), grey.split(RESIZE_CHUNK)):
        red, green, blue = chunk.int().unbind(1)
        out.copy_(((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).unsqueeze(1))
    return grey


def to_float(images: Tensor, generator: torch.Generator, mirror: bool = False) -> Tensor:
    """uint8 images to floats in [-1, 1), dequantised: x / 128 - 1 + U(0, 1/128), as in the authors' code.

    mirror: each image is flipped from left to right with probability 1/2.
    """
    if mirror:
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
        images = torch.where(flipped, images.flip(3), images)
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return noise.add_(images).div_(128).sub_(1).clamp_max_(1 - 2**-24)  # 255 + noise can round up to 256


def quantise(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, round((x + 1) * 127.5): what is scored and what is drawn."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
