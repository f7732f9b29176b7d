"""Lines and closed walks in latent space, and their images, for generate.py."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets import quantise
from models.conditional import given
from utils import plots
from utils.files import write_atomically

from .inputs.sampling import BLOCK

LINES, LINE_STEPS = 8, 10  # of an interpolation: number of lines, images on each
FRAME_MS = 50
PARALLEL = 1e-4  # directions are treated as parallel if the sine of their angle is smaller


@torch.inference_mode()
def images_of(G: nn.Module, z: Tensor, classes: Tensor | None = None) -> Tensor:
    """Draw images (N, C, H, W) uint8 from latents (N, z_dim) and, if G is conditional, labels or class weights."""
    device = next(G.parameters()).device
    blocks = zip(*(part.split(BLOCK) for part in given(z, classes)))
    return torch.cat([quantise(G(*(part.to(device) for part in block))).cpu() for block in blocks])


def lines(seed: int, count: int, z_dim: int) -> Tensor:
    """Latents on `count` quarter ellipses between pairs of latents: (count * LINE_STEPS, z_dim), line after line.

    Since cos^2 + sin^2 = 1, every point between two independent normal latents is normally distributed too.
    """
    start, end = torch.randn(2, count, 1, z_dim, generator=torch.Generator().manual_seed(seed))
    angle = torch.linspace(0, torch.pi / 2, LINE_STEPS).view(1, -1, 1)
    return (angle.cos() * start + angle.sin() * end).flatten(0, 1)


def class_lines(seed: int, count: int, z_dim: int, labels: Sequence[int], num_classes: int) -> tuple[Tensor, Tensor]:
    """Interpolate linearly between the classes, in this order, on `count` lines with one latent each.

    Returns latents (count * n, z_dim) and class weights (count * n, num_classes), n = 1 + pairs * (LINE_STEPS - 1).
    """
    one_hot = weights_of(labels, num_classes)
    share = torch.arange(LINE_STEPS - 1).div(LINE_STEPS - 1).view(-1, 1)
    way = torch.cat([torch.lerp(*pair, share) for pair in itertools.pairwise(one_hot)] + [one_hot[-1:]])
    z = torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))
    return z.repeat_interleave(len(way), 0), way.repeat(count, 1)


def weights_of(labels: Sequence[int], num_classes: int) -> Tensor:
    """Convert labels to class weights (N, num_classes) float32: 1 for the class, 0 for the others."""
    return F.one_hot(torch.tensor(labels), num_classes).float()


def arc(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Interpolate spherically from start to end (N, d) by share (N, 1), with linearly interpolated norms: (N, d)."""
    lengths = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    directions = start / lengths[0], end / lengths[1]
    angle = (directions[0] * directions[1]).sum(1, keepdim=True).clamp(-1, 1).acos()
    way = ((1 - share) * angle).sin() * directions[0] + (share * angle).sin() * directions[1]
    way = torch.where(angle.sin() < PARALLEL, torch.lerp(start, end, share), way / angle.sin())
    return torch.where(angle.sin() < PARALLEL, way, torch.lerp(*lengths, share) * way)


def walk(corners: Tensor, frames: int, classes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Walk on the sphere through latents (K, d) and back, with frames spread evenly over the K parts: (frames, d).

    classes: the corners' class weights (K, num_classes), which are interpolated linearly: (frames, num_classes).
    """
    place = torch.arange(frames, dtype=torch.float64) * len(corners) / frames
    share, first = place.frac().float().unsqueeze(1), place.long()
    then = (first + 1) % len(corners)
    z = arc(corners[first], corners[then], share)
    return z, None if classes is None else torch.lerp(classes[first], classes[then], share)


def save_walk(path: str | Path, images: Tensor, factor: int | None = None) -> None:
    """Save images (N, C, H, W) uint8 as an endless GIF. Without a factor, small images are enlarged."""
    enlarged = plots.enlarge(images, factor or plots.factor_of(images.size(-1)))
    frames: Sequence = [plots.picture(image) for image in enlarged]
    write_atomically(path, lambda temporary: plots.save_gif(temporary, frames, [FRAME_MS] * len(frames)))
