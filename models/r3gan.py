"""R3GAN's networks (Huang et al. 2024): residual networks without normalization, and G without a tanh.

The paper is "The GAN is dead; long live the GAN! A modern GAN baseline", arXiv 2501.05441. `base_channels` is the width
of all stages up to 32 pixels (the paper's: 768). Each doubling above halves it. `groups` is how many groups the 3x3
convolutions have (the paper's: 96). For conditional CIFAR-10, G has 20.8 and D 21.3 million parameters.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conditional import CONDITIONAL, ClassNorms, Embedding, Projection, Unlabelled, Verdict, latent
from .convolution import channels_last
from .resampling import Downsample, Upsample
from .shape import Shape

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of the leaky ReLU
BLOCKS = 2  # of a stage
WIDENING = 2  # of a block's hidden layers
PER_GROUP = 16  # channels of a group of a 3x3 convolution: 1536 / 96
# image size -> the side of each stage's maps. The paper starts from 4x4; 48 pixels, not in the paper, from 6x6.
SIDES = {size: tuple(size // 2**i for i in reversed(range(int(math.log2(size / 4)) + 1))) for size in (8, 16, 32)}
SIDES |= {48: (6, 12, 24, 48), 64: (4, 8, 16, 32, 64), 128: (4, 8, 16, 32, 64, 128)}
WIDEST_SIDE = 32


def widths(image_size: int, base_channels: int | None) -> tuple[int, ...]:
    """Return the width of each stage, coarsest first. Raises ValueError if the image size is not in SIDES."""
    if image_size not in SIDES:
        raise ValueError(f"r3gan makes images of {', '.join(map(str, SIDES))} pixels, not {image_size}")
    halvings = (max(0, math.ceil(math.log2(side / WIDEST_SIDE))) for side in SIDES[image_size])
    return tuple(max(1, (base_channels or 768) // 2**count) for count in halvings)


def groups_of(stages: Sequence[int], groups: int | None) -> list[int]:
    """Return the groups of each stage's 3x3 convolutions: `groups` at the first width, in proportion at others.

    None: groups of PER_GROUP channels, as in the paper, or of its largest divisor that divides the width. Raises
    ValueError if the groups do not divide the channels.
    """
    if groups is None:
        return [WIDENING * width // math.gcd(WIDENING * width, PER_GROUP) for width in stages]
    found = [max(1, groups * width // stages[0]) for width in stages]
    for width, count in zip(stages, found):
        if WIDENING * width % count:
            raise ValueError(
                f"groups {groups}: {count} do not divide the {WIDENING * width} channels of r3gan's 3x3 convolutions "
                f"at a width of {width}; take a number that does, or another base_channels"
            )
    return found


def check(shape: Shape) -> None:
    """Raise ValueError, with the reason, if the normalization, groups or size does not fit."""
    groups_of(widths(shape.image_size, shape.base_channels), shape.groups)
    for name in shape.d_norm:
        if name in ("batch", "layer"):
            raise ValueError(
                f"d_norm {name} is not for r3gan, whose networks do not normalise features: use none or spectral"
            )
        if name == "weight":
            raise ValueError(
                "d_norm weight is not for r3gan: the last layer of each of its blocks is 0 at the start, and a row of "
                "zeros cannot be scaled to norm 1. Use none or spectral"
            )


def initialise(network: nn.Module) -> None:
    """Draw weights with standard deviation gain / sqrt(fan_in); set biases to 0.

    The gain is GAIN * blocks^(-1/4) in a block's first two layers, 0 in its last, and 1 elsewhere. A branch's variance
    is then proportional to 1 / blocks, so that of the sum of all branches does not depend on their number.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    projected = [module.embedding for module in network.modules() if isinstance(module, Projection)]
    gains: dict[nn.Module, float] = {block.conv3: 0.0 for block in blocks}
    gains |= {layer: GAIN * len(blocks) ** -0.25 for block in blocks for layer in (block.conv1, block.conv2)}
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, 0.0, gains.get(layer, 1.0) / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, Embedding):  # a linear layer of the one-hot class: its fan-in is the number of classes
            # D's logit sums the products of a row's d numbers with features: hence another 1 / sqrt(d).
            fan_in = layer.weight.numel() if layer in projected else len(layer.weight)
            nn.init.normal_(layer.weight, 0.0, fan_in**-0.5)


class Block(nn.Module):
    """x + conv 1x1 (leaky ReLU (grouped conv 3x3 (leaky ReLU (conv 1x1)))), twice as wide inside.

    It starts as the identity, as its last layer starts at 0. Only the two layers before a leaky ReLU have biases.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        hidden = WIDENING * channels
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups)
        self.conv3 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return x + self.conv3(F.leaky_relu(h, SLOPE))


def pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a list: the 1x1 convolution between stages, or nothing if their widths are equal."""
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False)] if in_channels != out_channels else []


class ClassBeside(Unlabelled):
    """G of projection and acgan without norms. An embedding of the class, as long as z, is appended to z."""

    def __init__(self, num_classes: int, z_dim: int) -> None:
        super().__init__(num_classes)
        self.embedding = Embedding(num_classes, z_dim)

    def beside(self, x: Tensor, labels: Tensor | None) -> Tensor:
        self.check(labels)
        return torch.cat([x, self.embedding(labels).to(x.dtype)], dim=1)


class Basis(nn.Module):
    """z (N, d) -> (N, C, S, S): a learned map for each channel, N(0, 1) at first, times a linear function of z."""

    def __init__(self, in_features: int, channels: int, side: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, channels, bias=False)
        self.maps = nn.Parameter(torch.randn(channels, side, side))

    def forward(self, z: Tensor) -> Tensor:
        return self.maps * self.linear(z)[:, :, None, None]


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, channels, image_size, image_size), trained towards [-1, 1] but not bounded.

    Takes labels if there are classes. Under projection and acgan, an embedding of the class is appended to z.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z_dim, self.num_classes = shape.z_dim, shape.num_classes
        stages = widths(shape.image_size, shape.base_channels)
        of_G = CONDITIONAL[shape.conditional][0]
        described = issubclass(of_G, ClassNorms)
        beside = shape.z_dim if described else of_G.extra(shape.num_classes)
        self.basis = Basis(shape.z_dim + beside, stages[0], SIDES[shape.image_size][0])
        layers: list[nn.Module] = []
        for i, (width, count) in enumerate(zip(stages, groups_of(stages, shape.groups))):
            if i:
                layers += [*pointwise(stages[i - 1], width), Upsample()]
            layers += [Block(width, count) for _ in range(BLOCKS)]
        self.layers = nn.Sequential(*layers)
        self.to_image = nn.Conv2d(stages[-1], shape.channels, 1, bias=False)
        self.classes = ClassBeside(shape.num_classes, shape.z_dim) if described else of_G(shape.num_classes)
        initialise(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = channels_last(
            self.basis(self.classes.beside(latent(z, self.z_dim), labels))
        )  # (N, C, 4, 4), or 6x6 for 48 pixels
        return self.to_image(self.layers(h))


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) -> logits (N, 1); takes labels if there are classes.

    A depthwise convolution reduces each channel of the last map to one number h, and a linear layer maps these to the
    logit. Under projection, as in the authors' code, that layer keeps the width, and the logit is <layer(h), e_y>
    without psi. classify, for acgan: return (logits, class logits (N, num_classes)).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_classes = shape.num_classes
        stages = widths(shape.image_size, shape.base_channels)
        classes = CONDITIONAL[shape.conditional][1]
        self.from_image = nn.Conv2d(shape.channels + classes.extra(shape.num_classes), stages[-1], 1, bias=False)
        layers: list[nn.Module] = []
        for i, (width, count) in reversed([*enumerate(zip(stages, groups_of(stages, shape.groups)))]):
            layers += [Block(width, count) for _ in range(BLOCKS)]
            if i:
                layers += [Downsample(), *pointwise(width, stages[i - 1])]
        self.layers = nn.Sequential(*layers)
        self.depthwise = nn.Conv2d(stages[0], stages[0], SIDES[shape.image_size][0], groups=stages[0], bias=False)
        self.projects = issubclass(classes, Projection)
        self.head = nn.Linear(stages[0], stages[0] if self.projects else 1, bias=False)
        self.classes = classes(shape.num_classes, stages[0])
        initialise(self)

    def forward(self, x: Tensor, labels: Tensor | None = None, classify: bool = False) -> Verdict:
        h = self.layers(self.from_image(channels_last(self.classes.beside(x, labels))))
        h = self.depthwise(h).flatten(1)  # (N, C)
        if self.projects:  # the label's term is all of the logit
            h = self.head(h)
            return self.classes.judged(h.new_zeros(len(h), 1), h, labels, classify)
        return self.classes.verdict(self.head, h, h, labels, classify)
