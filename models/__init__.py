"""The networks: tensors in, tensors out. build_models() is the one way to make a pair."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from . import dcgan, mlp, r3gan, resnet
from .attention import check_attention
from .conditional import CONDITIONAL, check_conditional
from .convolution import lay_out
from .folding import folded
from .normalization import apply_weight_norm, check_d_norm
from .spectral_norm import remove_spectral_norm, spectral_norm

__all__ = ["CONDITIONAL", "MODELS", "build_models", "folded", "remove_spectral_norm", "spectral_norm"]

MODELS = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "resnet": (resnet.Generator, resnet.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
    "r3gan": (r3gan.Generator, r3gan.Discriminator),
}
# The sides of the feature maps that both networks of a size have, where there are any
ATTENTION_SIDES = {"dcgan": dcgan.attention_sides, "resnet": resnet.attention_sides}


def build_models(
    model: str,
    image_size: int = 32,
    channels: int = 3,
    z_dim: int = 128,
    base_channels: int | None = None,
    d_norm: str | Sequence[str] = ("spectral",),
    g_sn: bool = False,
    arch_variant: str = "code",
    num_classes: int = 0,
    conditional: str = "none",
    attention: int | None = None,
    groups: int | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Build an initialised pair (G, D), normalised as asked. Weights come from torch's global random state.

    base_channels: the width unit of each model's file; None for the paper's. d_norm: one name or several of D_NORMS.
    g_sn: spectral normalization in G too. arch_variant: "code" or "paper", for dcgan (see there). conditional: one of
    CONDITIONAL, with so many num_classes. attention: the side of the feature maps with self-attention, in G and in D.
    groups: of r3gan's 3x3 convolutions; None for the paper's.
    G(z): (N, z_dim) -> (N, channels, image_size, image_size) in [-1, 1], which r3gan only learns. D(x): the same shape
    -> logits (N, 1). With classes G(z, labels) and D(x, labels): labels (N,) int64, or weights of the classes
    (N, num_classes). Raises ValueError for an unknown name, a senseless pair in d_norm, a size the model cannot make,
    classes without conditional or the reverse, attention at a side that does not occur, and what r3gan does without.
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r} is not one of {', '.join(MODELS)}")
    if arch_variant not in dcgan.D_WIDTHS:
        raise ValueError(f"arch_variant {arch_variant!r} is not one of {', '.join(dcgan.D_WIDTHS)}")
    if arch_variant != "code" and model != "dcgan":
        raise ValueError(f"arch_variant {arch_variant} is for dcgan: paper and code agree on the other models")
    d_norm = check_d_norm(d_norm)
    check_conditional(conditional, num_classes)
    shape: dict[str, Any] = {"image_size": image_size, "channels": channels, "base_channels": base_channels}
    shape |= {"num_classes": num_classes, "conditional": conditional}
    if model == "dcgan":
        shape["arch_variant"] = arch_variant
    if groups is not None and model != "r3gan":
        raise ValueError(f"groups {groups} is for r3gan: the convolutions of the other models have none")
    if model == "r3gan":
        shape["groups"] = groups
    if attention is not None:
        check_attention(attention, model, ATTENTION_SIDES[model](image_size) if model in ATTENTION_SIDES else None)
        shape["attention"] = attention
    Generator, Discriminator = MODELS[model]
    G, D = lay_out(Generator(z_dim=z_dim, **shape)), lay_out(Discriminator(d_norm=d_norm, **shape))
    # Initialise, then wrap: what is written into a wrapped weight is lost or changes sigma.
    return apply_weight_norm(G, ("spectral",) if g_sn else ()), apply_weight_norm(D, d_norm)
