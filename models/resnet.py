"""The paper's ResNet (Miyato et al. 2018, tables 4 to 6; 64 and 128 pixels after the authors' sngan_projection).

`base_channels` is the width of D's first block: 128 in the paper up to 32 pixels, 64 above.
Images below 32 pixels use the 32-pixel networks with fewer blocks that change the resolution.
"""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attention_at
from .conditional import CONDITIONAL, Labelled, Norm, Sequential, Verdict, call, latent
from .convolution import channels_last
from .normalization import feature_norm
from .precision import widened
from .resampling import ConvAvgPool2d, UpsampleConv2d
from .shape import Shape

# image size -> (side of G's first feature map, its width, the widths after each of G's up-blocks,
#                D's blocks as (width, down)); widths in units of base_channels.
Row = tuple[int, int, tuple[int, ...], tuple[tuple[int, bool], ...]]
ARCHITECTURES: dict[int, Row] = {
    8: (4, 2, (2,), ((1, True), (1, False), (1, False))),
    16: (4, 2, (2, 2), ((1, True), (1, False), (1, False))),
    32: (4, 2, (2, 2, 2), ((1, True), (1, True), (1, False), (1, False))),
    48: (6, 8, (4, 2, 1), ((1, True), (2, True), (4, True), (8, True), (16, False))),
    64: (4, 16, (8, 4, 2, 1), ((1, True), (2, True), (4, True), (8, True), (16, True))),
    128: (4, 16, (16, 8, 4, 2, 1), ((1, True), (2, True), (4, True), (8, True), (16, True), (16, False))),
}


def architecture(image_size: int, base_channels: int | None) -> tuple[int, Row]:
    """Return base_channels (None: the paper's) and the row of ARCHITECTURES. Raises ValueError if there is no row."""
    if image_size not in ARCHITECTURES:
        raise ValueError(f"resnet makes images of {', '.join(map(str, ARCHITECTURES))} pixels, not {image_size}")
    return base_channels or (128 if image_size <= 32 else 64), ARCHITECTURES[image_size]


def attention_sides(image_size: int) -> list[int]:
    """Return the sides of the feature maps that both networks have."""
    bottom, _, up, rows = architecture(image_size, None)[1]
    seen = [image_size // 2 ** (i + 1) for i in range(sum(down for _, down in rows))]  # by D
    return [side for side in (bottom * 2**i for i in range(len(up) + 1)) if side in seen]


def initialise(network: nn.Module) -> None:
    """Draw weights Xavier uniform, with gain sqrt(2) in residual 3x3 convolutions; biases are 0 (sngan_projection)."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            residual = name.rsplit(".")[-1] in ("conv1", "conv2")
            nn.init.xavier_uniform_(module.weight, math.sqrt(2) if residual else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class UpBlock(Labelled):
    """BN, ReLU, upsample, conv, BN, ReLU, conv; shortcut: conv 1x1, upsample. (N, C, H, W) -> (N, C', 2H, 2W).

    norm: the factory of its two batch norms, which may take labels.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.bn1, self.conv1 = norm(in_channels), UpsampleConv2d(in_channels, out_channels)
        self.bn2, self.conv2 = norm(out_channels), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.conv1(F.relu(call(self.bn1, x, labels), inplace=True))
        h = self.conv2(F.relu(call(self.bn2, h, labels), inplace=True))
        # A 1x1 convolution commutes with upsampling, and costs a quarter before it.
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """z (N, z_dim) -> images (N, channels, image_size, image_size) in [-1, 1]; takes labels if there are classes.

    Under projection and acgan, the batch norms of the blocks are class-conditional; the last one in G is not.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.z_dim, self.num_classes = shape.z_dim, shape.num_classes
        base, (self.bottom, first, up, _) = architecture(shape.image_size, shape.base_channels)
        widths = [base * width for width in (first, *up)]
        self.classes = CONDITIONAL[shape.conditional][0](shape.num_classes)
        norm = self.classes.norm(nn.BatchNorm2d)
        self.project = nn.Linear(shape.z_dim + self.classes.extra(shape.num_classes), self.bottom**2 * widths[0])
        blocks = attention_at(self.bottom, shape.attention, widths[0])
        for i, pair in enumerate(itertools.pairwise(widths), 1):
            blocks += [UpBlock(*pair, norm), *attention_at(self.bottom * 2**i, shape.attention, pair[1])]
        self.blocks = Sequential(*blocks)
        self.bn, self.to_image = nn.BatchNorm2d(widths[-1]), nn.Conv2d(widths[-1], shape.channels, 3, padding=1)
        initialise(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.project(self.classes.beside(latent(z, self.z_dim), labels))
        h = h.unflatten(1, (-1, self.bottom, self.bottom))  # (N, C, 4, 4), or 6x6 for 48 pixels
        h = self.blocks(channels_last(h), labels)  # (N, C', S, S)
        return widened(self.to_image(F.relu(self.bn(h), inplace=True))).tanh()


class DownBlock(nn.Module):
    """[ReLU,] conv, ReLU, conv[, pool]; shortcut: pool, conv 1x1, or the identity if nothing changes.

    D's first block takes the image: no ReLU before it, no feature normalization, and a hidden width of out_channels
    instead of in_channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, down: bool, first: bool = False, d_norm: Sequence[str] = ("none",)
    ) -> None:
        super().__init__()
        hidden = out_channels if first else in_channels
        self.down, self.first = down, first
        self.norm1 = nn.Identity() if first else feature_norm(d_norm, in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.norm2 = nn.Identity() if first else feature_norm(d_norm, hidden)
        self.conv2 = ConvAvgPool2d(hidden, out_channels) if down else nn.Conv2d(hidden, out_channels, 3, padding=1)
        changes = down or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(self.norm1(x))  # never in place: the shortcut takes the raw x
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return h + self.shortcut(F.avg_pool2d(x, 2) if self.down else x)


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) -> logits (N, 1): global sum pooling and a linear layer.

    Takes labels if there are classes. The layer (projection's psi) has no bias, as in the authors' 32-pixel network;
    theirs of other sizes have one. classify, for acgan: return (logits, class logits (N, num_classes)).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_classes, side = shape.num_classes, shape.image_size
        base, (*_, rows) = architecture(side, shape.base_channels)
        classes = CONDITIONAL[shape.conditional][1]
        widths = [shape.channels + classes.extra(shape.num_classes), *(base * width for width, _ in rows)]
        blocks: list[nn.Module] = []
        for i, (_, down) in enumerate(rows):
            blocks.append(DownBlock(widths[i], widths[i + 1], down, first=i == 0, d_norm=shape.d_norm))
            if down:  # the first map of this side
                side //= 2
                blocks += attention_at(side, shape.attention, widths[i + 1])
        self.blocks = nn.Sequential(*blocks)
        self.norm = feature_norm(shape.d_norm, widths[-1])
        self.head = nn.Linear(widths[-1], 1, bias=False)
        initialise(self)
        self.classes = classes(shape.num_classes, widths[-1])  # last: the other weights are drawn as without classes
        initialise(self.classes)

    def forward(self, x: Tensor, labels: Tensor | None = None, classify: bool = False) -> Verdict:
        h = self.blocks(channels_last(self.classes.beside(x, labels)))  # (N, C, S', S')
        h = F.relu(self.norm(h)).sum(dim=(2, 3))
        return self.classes.verdict(self.head, h, h, labels, classify)
