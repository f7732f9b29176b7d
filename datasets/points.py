"""Points in a plane to learn from, instead of images: mixtures of Gaussians (plane.py)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 3.0  # standard deviations within which a sample is good (Srivastava et al. 2017)


class Target(NamedTuple):
    """Gaussians of one standard deviation around centres (K, dimensions). modes: the centres are few and counted."""

    centres: Tensor
    std: float
    modes: bool = False

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        """Real points, as images of one pixel: (count, dimensions, 1, 1)."""
        chosen = self.centres[torch.randint(len(self.centres), (count,), generator=random)]
        return (chosen + self.std * torch.randn(chosen.shape, generator=random))[..., None, None]

    def judge(self, points: Tensor) -> tuple[int, float]:
        """The number of centres with a good sample among points (N, dimensions), and the share of good samples."""
        distances, nearest = torch.cdist(points, self.centres).min(dim=1)
        good = distances <= NEAR * self.std
        return len(nearest[good].unique()), good.float().mean().item()


def arc(count: int, turns: float, radius: float | Tensor = 1.0) -> Tensor:
    """Points on a circle or spiral: (count, 2)."""
    angles = torch.arange(count) / count * turns * 2 * math.pi
    return torch.stack([angles.cos(), angles.sin()], dim=1) * radius


HALF, SHIFT = arc(200, 0.5), torch.tensor([0.5, 0.25])
TARGETS = {
    "ring": Target(arc(8, 1, 2.0), 0.02, modes=True),
    "grid": Target(torch.cartesian_prod(*[torch.arange(-4.0, 5, 2)] * 2), 0.05, modes=True),
    "moons": Target(1.3 * torch.cat([HALF - SHIFT, SHIFT - HALF]), 0.1),
    "spiral": Target(arc(400, 2, torch.linspace(0.3, 2, 400)[:, None]), 0.05),
    "dirac": Target(torch.zeros(1, 1), 0.0),
}
