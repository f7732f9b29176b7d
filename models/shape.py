"""The sizes and variants of a pair of networks."""

from typing import NamedTuple


class Shape(NamedTuple):
    """The shape of a pair (G, D). Each field is a keyword of build_models()."""

    image_size: int = 32  # pixels a side
    channels: int = 3  # of the images
    z_dim: int = 128
    base_channels: int | None = None  # base width, explained in each model's file; None: the paper's
    d_norm: tuple[str, ...] = ("spectral",)  # names of normalization.D_NORMS
    arch_variant: str = "code"  # or "paper": the widths of dcgan's D
    num_classes: int = 0
    conditional: str = "none"  # a name of conditional.CONDITIONAL
    attention: int | None = None  # the side of the feature maps with self-attention, in G and in D
    groups: int | None = None  # of r3gan's 3x3 convolutions; None: the paper's
