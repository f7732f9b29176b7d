"""The networks: tensors in, tensors out. build_models() is the one way to make a pair."""

from typing import Any

from torch import nn

from . import dcgan, mlp, r3gan, resnet
from .attention import check_attention
from .conditional import CONDITIONAL, check_conditional
from .folding import folded
from .normalization import apply_weight_norm, check_d_norm
from .shape import Shape
from .spectral_norm import remove_spectral_norm, spectral_norm

__all__ = ["CONDITIONAL", "MODELS", "Shape", "build_models", "check", "folded", "remove_spectral_norm", "spectral_norm"]

MODELS = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "resnet": (resnet.Generator, resnet.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
    "r3gan": (r3gan.Generator, r3gan.Discriminator),
}
ATTENTION_SIDES = {"dcgan": dcgan.attention_sides, "resnet": resnet.attention_sides}


def build_models(model: str, *sizes: Any, g_sn: bool = False, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """Build an initialised pair (G, D). Weights are drawn from torch's global random state.

    sizes, settings: the fields of Shape; d_norm may also be a single name. g_sn: spectral normalization in G as well.
    G(z): (N, z_dim) -> (N, channels, image_size, image_size) in [-1, 1]; r3gan's G is not bounded. D(x): images of that
    shape -> logits (N, 1). With classes they are G(z, labels) and D(x, labels); labels are (N,) int64, or weights of
    the classes (N, num_classes). Raises ValueError if check(), check_conditional() or the model refuses a setting.
    """
    shape = Shape(*sizes, **settings)
    shape = shape._replace(d_norm=check_d_norm(shape.d_norm))
    check(model, shape)
    check_conditional(shape.conditional, shape.num_classes)
    Generator, Discriminator = MODELS[model]
    G, D = Generator(shape), Discriminator(shape)
    # Initialise, then wrap: a value written into a wrapped weight is lost, or changes sigma.
    return apply_weight_norm(G, ("spectral",) if g_sn else ()), apply_weight_norm(D, shape.d_norm)


def check(model: str, shape: Shape) -> None:
    """Raise ValueError, with the reason, if a setting is unknown or belongs to another model."""
    if model not in MODELS:
        raise ValueError(f"model {model!r} is not one of {', '.join(MODELS)}")
    if shape.arch_variant not in dcgan.D_WIDTHS:
        raise ValueError(f"arch_variant {shape.arch_variant!r} is not one of {', '.join(dcgan.D_WIDTHS)}")
    if shape.arch_variant != "code" and model != "dcgan":
        variant = shape.arch_variant
        raise ValueError(f"arch_variant {variant} is for --model dcgan: paper and code agree on the other models")
    check_d_norm(shape.d_norm)
    if model == "r3gan":
        r3gan.check(shape)
    elif shape.groups is not None:
        raise ValueError(f"groups {shape.groups} is for --model r3gan: the other models have no grouped convolutions")
    if shape.attention is not None:
        sides = ATTENTION_SIDES.get(model, lambda image_size: [])
        check_attention(shape.attention, model, sides(shape.image_size))
