"""Augmentation of what D sees, real and generated images alike: DiffAugment (Zhao et al. 2020, arXiv 2006.10738).

Images are (N, C, H, W) in [-1, 1], and so zero, which translation and cutout put where nothing is left, is medium grey.
Each transform takes two uniform numbers in [0, 1) for each image, is differentiable, and treats images independently.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOVED, CUT = 8, 2  # translation by up to an eighth of the side; a square of half the side is cut out


def per_image(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def brightness(x: Tensor, u: Tensor) -> Tensor:
    """Each image plus a number from [-0.5, 0.5). u (N, 2) in [0, 1), of which the first column is used."""
    return x + per_image(u[:, 0] - 0.5)


def saturation(x: Tensor, u: Tensor) -> Tensor:
    """The distance from the mean of a pixel's channels times a number from [0, 2): grey images stay. u as above."""
    mean = x.mean(dim=1, keepdim=True)
    return mean + (x - mean) * per_image(2 * u[:, 0])


def contrast(x: Tensor, u: Tensor) -> Tensor:
    """The distance from the image's mean times a number from [0.5, 1.5). u as above."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * per_image(u[:, 0] + 0.5)


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Down and right by whole pixels, each from -side // 8 to side // 8; zeros come in. u (N, 2): the two ways."""
    for dim, column in ((2, u[:, 0]), (3, u[:, 1])):
        most = x.size(dim) // MOVED
        x = shifted(x, (column * (2 * most + 1)).long() - most, dim)
    return x


def shifted(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Each image moved along dim by so many pixels, by (N,) int64; zeros come in."""
    side = x.size(dim)
    shape = [len(x), 1, 1, 1]
    shape[dim] = side
    source = (torch.arange(side, device=x.device) - by[:, None]).view(shape)
    inside = (source >= 0) & (source < side)
    return torch.where(inside, x.gather(dim, source.clamp(0, side - 1).expand_as(x)), 0.0)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Zero in a square of half the side, whose centre is anywhere in the image: clipped at the border. u (N, 2)."""
    rows, columns = (_cut(x.size(dim), column) for dim, column in ((2, u[:, 0]), (3, u[:, 1])))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0.0, x)


def _cut(side: int, u: Tensor) -> Tensor:
    """Which pixels along one side are cut out: (N, side) bool. Centres of an even length lie between two pixels."""
    length = side // CUT
    first = (u * (side + 1 - length % 2)).long() - length // 2
    place = torch.arange(side, device=u.device) - first[:, None]
    return (place >= 0) & (place < length)


# The word in --augment: the transforms that it stands for, in their order
AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], ...]] = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}
TRANSFORMS = [transform for group in AUGMENTATIONS.values() for transform in group]


def draw(count: int, p: Tensor, generator: torch.Generator) -> Tensor:
    """What augment() takes for so many images: (count, TRANSFORMS, 3), whether each is applied (1, else 0), and its u.

    Each transform is applied to an image with probability p, a scalar, by itself. The same numbers are drawn whichever
    are wanted.
    """
    drawn = torch.rand(count, len(TRANSFORMS), 3, generator=generator, device=generator.device)
    applied = (drawn[..., :1] < p).to(drawn)  # p is not read: the device need not be waited for
    return torch.cat([applied, drawn[..., 1:]], dim=2)


def augment(x: Tensor, names: tuple[str, ...], drawn: Tensor) -> Tensor:
    """Images (N, C, H, W) by the AUGMENTATIONS of these names, in their order. drawn: of draw(), for each image."""
    for name in names:
        for transform in AUGMENTATIONS[name]:
            applied, u = drawn[:, TRANSFORMS.index(transform)].split([1, 2], dim=1)
            x = torch.where(per_image(applied) > 0, transform(x, u), x)
    return x


class Augmented(nn.Module):
    """D(augment(x)): what a penalty on D's gradient at images that are not augmented yet looks at."""

    def __init__(self, D: nn.Module, names: tuple[str, ...], drawn: Tensor) -> None:
        super().__init__()
        self.D, self.names, self.drawn = D, names, drawn

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        return self.D(augment(x, self.names, self.drawn), *labels)
