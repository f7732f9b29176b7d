"""DiffAugment (Zhao et al. 2020, arXiv 2006.10738): augmentation of all images that D sees, real and generated.

Images are (N, C, H, W) in [-1, 1]. Translation and cutout fill empty pixels with zero, which is medium grey.
Each transform takes two uniform numbers in [0, 1) for each image, is differentiable, and treats images independently.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOVED, CUT = 8, 2  # translation by up to an eighth of the side; a square of half the side is cut out


def per_image(values: Tensor) -> Tensor:
    """View (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def brightness(x: Tensor, u: Tensor) -> Tensor:
    """Add a number from [-0.5, 0.5) to each image. u (N, 2) in [0, 1); only its first column is used."""
    return x + per_image(u[:, 0] - 0.5)


def saturation(x: Tensor, u: Tensor) -> Tensor:
    """Multiply each pixel's distance from its channel mean by a number from [0, 2). u as in brightness()."""
    mean = x.mean(dim=1, keepdim=True)
    return mean + (x - mean) * per_image(2 * u[:, 0])


def contrast(x: Tensor, u: Tensor) -> Tensor:
    """Multiply the distance from each image's mean by a number from [0.5, 1.5). u as in brightness()."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * per_image(u[:, 0] + 0.5)


def translation(x: Tensor, u: Tensor) -> Tensor:
    """Shift images down and right by whole pixels, up to side // 8 either way, filling with zeros. u (N, 2)."""
    for dim, column in ((2, u[:, 0]), (3, u[:, 1])):
        most = x.size(dim) // MOVED
        x = shifted(x, (column * (2 * most + 1)).long() - most, dim)
    return x


def shifted(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Shift image i along dim by by[i] pixels, filling with zeros. by (N,) int64."""
    side = x.size(dim)
    shape = [len(x), 1, 1, 1]
    shape[dim] = side
    source = (torch.arange(side, device=x.device) - by[:, None]).view(shape)
    inside = (source >= 0) & (source < side)
    return torch.where(inside, x.gather(dim, source.clamp(0, side - 1).expand_as(x)), 0.0)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Zero a square of half the side. Its centre is anywhere in the image; the border clips it. u (N, 2)."""
    rows, columns = (_cut(x.size(dim), column) for dim, column in ((2, u[:, 0]), (3, u[:, 1])))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0.0, x)


def _cut(side: int, u: Tensor) -> Tensor:
    """Return which pixels along a side are cut: (N, side) bool. An even length is centred between two pixels."""
    length = side // CUT
    first = (u * (side + 1 - length % 2)).long() - length // 2
    place = torch.arange(side, device=u.device) - first[:, None]
    return (place >= 0) & (place < length)


# Each choice of --augment: its transforms, in order
AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], ...]] = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}
TRANSFORMS = [transform for group in AUGMENTATIONS.values() for transform in group]


def draw(count: int, p: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the numbers of augment() for `count` images: (count, TRANSFORMS, 3).

    The three are 1 or 0, for applied or not, and the two of u. Each transform is applied to each image independently
    with probability p, a scalar. All get numbers, so that the random state does not depend on which are used.
    """
    drawn = torch.rand(count, len(TRANSFORMS), 3, generator=generator, device=generator.device)
    applied = (drawn[..., :1] < p).to(drawn)  # on the device: reading p would wait for it
    return torch.cat([applied, drawn[..., 1:]], dim=2)


def augment(x: Tensor, names: tuple[str, ...], drawn: Tensor) -> Tensor:
    """Apply the AUGMENTATIONS of these names, in order, to images (N, C, H, W). drawn: numbers from draw()."""
    for name in names:
        for transform in AUGMENTATIONS[name]:
            applied, u = drawn[:, TRANSFORMS.index(transform)].split([1, 2], dim=1)
            x = torch.where(per_image(applied) > 0, transform(x, u), x)
    return x


class Augmented(nn.Module):
    """D(augment(x)) as a module, for penalties on D's gradient at the images before augmentation."""

    def __init__(self, D: nn.Module, names: tuple[str, ...], drawn: Tensor) -> None:
        super().__init__()
        self.D, self.names, self.drawn = D, names, drawn

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        return self.D(augment(x, self.names, self.drawn), *labels)
