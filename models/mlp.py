"""A multilayer perceptron pair: the vanilla GAN of Goodfellow et al. 2014 in today's layers (ReLU and batch norm in G).

`base_channels` is the width of the narrowest hidden layer, 256 by default. Not in Miyato et al. 2018.
"""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from .normalization import feature_norm

SLOPE = 0.2


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, channels, image_size, image_size) in [-1, 1]."""

    def __init__(
        self, image_size: int = 32, channels: int = 3, z_dim: int = 128, base_channels: int | None = None
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        width, self.shape = base_channels or 256, (channels, image_size, image_size)
        widths, layers = (z_dim, width, 2 * width, 4 * width), []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) -> logits (N, 1)."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        base_channels: int | None = None,
        d_norm: Sequence[str] = ("none",),
    ) -> None:
        super().__init__()
        width = base_channels or 256
        self.layers = nn.Sequential(
            nn.Linear(channels * image_size**2, 2 * width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(2 * width, width),
            feature_norm(d_norm, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))
