"""MLPs: the GAN of Goodfellow et al. 2014 with ReLU, and batch norm in G.

`base_channels` is the width of the narrowest hidden layer, 256 by default. Miyato et al. 2018 have no such networks.
"""

import itertools
import math

from torch import Tensor, nn

from .conditional import CONDITIONAL, Sequential, Verdict, latent
from .normalization import feature_norm
from .precision import Tanh
from .shape import Shape

SLOPE = 0.2


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, channels, image_size, image_size) in [-1, 1]; takes labels if there are classes.

    Under projection and acgan, all batch norms but the last are class-conditional.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z_dim, self.num_classes = shape.z_dim, shape.num_classes
        width, self.image = shape.base_channels or 256, (shape.channels, shape.image_size, shape.image_size)
        self.classes = CONDITIONAL[shape.conditional][0](shape.num_classes)
        widths = (shape.z_dim + self.classes.extra(shape.num_classes), width, 2 * width, 4 * width)
        norms = (*[self.classes.norm(nn.BatchNorm1d)] * 2, nn.BatchNorm1d)
        layers: list[nn.Module] = []
        for (fan_in, fan_out), norm in zip(itertools.pairwise(widths), norms, strict=True):
            layers += [nn.Linear(fan_in, fan_out), norm(fan_out), nn.ReLU()]
        self.layers = Sequential(*layers, nn.Linear(widths[-1], math.prod(self.image)), Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(self.classes.beside(latent(z, self.z_dim), labels), labels).unflatten(1, self.image)


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) -> logits (N, 1); takes labels if there are classes.

    classify, for acgan: return (logits, class logits (N, num_classes)).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_classes = shape.num_classes
        width = shape.base_channels or 256
        classes = CONDITIONAL[shape.conditional][1]
        self.layers = nn.Sequential(
            nn.Linear(shape.channels * shape.image_size**2 + classes.extra(shape.num_classes), 2 * width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(2 * width, width),
            feature_norm(shape.d_norm, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, 1),
        )
        self.classes = classes(shape.num_classes, width)  # last: the other weights are drawn as without classes

    def forward(self, x: Tensor, labels: Tensor | None = None, classify: bool = False) -> Verdict:
        *hidden, head = self.layers
        h = self.classes.beside(x.flatten(1), labels)
        for layer in hidden:
            h = layer(h)
        return self.classes.verdict(head, h, h, labels, classify)
