"""The paper's CNN (Miyato et al. 2018, table 3) for images of 8, 16, 32, 48, 64 or 128 pixels.

Two variants: "code", the default, has the widths of the authors' chainer-gan-lib, which gave the reported scores;
"paper" has those printed in table 3. Both use slope 0.1 and z ~ N(0, I), as printed. The paper's `base_channels` is 64.
"""

import itertools

from torch import Tensor, nn

from .attention import attention_at
from .conditional import CONDITIONAL, Sequential, Verdict, latent
from .convolution import Conv2d, ConvTranspose2d, channels_last
from .normalization import feature_norm
from .precision import Tanh
from .shape import Shape

SLOPE = 0.1
# The width of each of D's seven convolutions, in units of base_channels.
D_WIDTHS = {"code": (1, 2, 2, 4, 4, 8, 8), "paper": (1, 1, 2, 2, 4, 4, 8)}


def initialise(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02^2), set biases to 0 (Radford et al. 2016); normalization layers stay as they are."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_image_size(image_size: int) -> None:
    if image_size < 8 or image_size % 8:
        raise ValueError(f"dcgan makes images whose size is a multiple of 8, not {image_size}")


def attention_sides(image_size: int) -> list[int]:
    """Return the sides of the feature maps that both networks have."""
    return [image_size // factor for factor in (8, 4, 2, 1)]


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, channels, image_size, image_size) in [-1, 1]; takes labels if there are classes.

    Under projection and acgan, all batch norms but the last are class-conditional.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z_dim, self.num_classes = shape.z_dim, shape.num_classes
        check_image_size(shape.image_size)
        ch, self.bottom = shape.base_channels or 64, shape.image_size // 8
        widths = (8 * ch, 4 * ch, 2 * ch, ch)
        self.classes = CONDITIONAL[shape.conditional][0](shape.num_classes)
        norm = self.classes.norm(nn.BatchNorm2d)
        self.project = nn.Linear(shape.z_dim + self.classes.extra(shape.num_classes), self.bottom**2 * widths[0])
        layers = [norm(widths[0]), nn.ReLU(inplace=True)] if shape.arch_variant == "code" else []
        layers += attention_at(self.bottom, shape.attention, widths[0])
        for i, (in_channels, out_channels) in enumerate(itertools.pairwise(widths), 1):
            layers.append(ConvTranspose2d(in_channels, out_channels))
            layers.append((norm if i < len(widths) - 1 else nn.BatchNorm2d)(out_channels))
            layers.append(nn.ReLU(inplace=True))
            layers += attention_at(self.bottom * 2**i, shape.attention, out_channels)
        self.layers = Sequential(*layers, Conv2d(ch, shape.channels, 3), Tanh())
        initialise(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.project(self.classes.beside(latent(z, self.z_dim), labels))
        h = h.unflatten(1, (-1, self.bottom, self.bottom))  # (N, 8 ch, S/8, S/8)
        return self.layers(channels_last(h), labels)


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) -> logits (N, 1): alternating 3x3 and strided 4x4 convolutions.

    Takes labels if there are classes. The linear head sees the last feature map flattened; projection and acgan see it
    sum-pooled. classify, for acgan: return (logits, class logits (N, num_classes)).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_classes, image_size = shape.num_classes, shape.image_size
        check_image_size(image_size)
        classes, units = CONDITIONAL[shape.conditional][1], D_WIDTHS[shape.arch_variant]
        widths = [shape.channels + classes.extra(shape.num_classes)]
        widths += [(shape.base_channels or 64) * unit for unit in units]
        halved = 2 ** (len(units) // 2)
        if image_size % halved:
            raise ValueError(
                f"with the {len(units)} widths of arch_variant {shape.arch_variant} dcgan's D takes images whose size "
                f"is a multiple of {halved}, not {image_size}"
            )
        layers: list[nn.Module] = []
        for i, (in_channels, out_channels) in enumerate(itertools.pairwise(widths)):
            strided = i % 2 == 1
            layers.append(Conv2d(in_channels, out_channels, *((4, 2) if strided else (3, 1))))
            if i > 0:  # as in DCGAN, the image itself is not normalised
                layers.append(feature_norm(shape.d_norm, out_channels))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            if strided or i == 0:  # the first map of this side
                layers += attention_at(image_size // 2 ** ((i + 1) // 2), shape.attention, out_channels)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * (image_size // halved) ** 2, 1)
        initialise(self)
        self.classes = classes(shape.num_classes, widths[-1])  # last: the other weights are drawn as without classes
        initialise(self.classes)

    def forward(self, x: Tensor, labels: Tensor | None = None, classify: bool = False) -> Verdict:
        h = self.layers(channels_last(self.classes.beside(x, labels)))
        return self.classes.verdict(self.head, h.flatten(1), h, labels, classify)
