"""The choices of --d_norm: the normalizations that Miyato et al. 2018 compare in D (sections 3 and 4, appendix E).

Two reparametrize weights and are applied to a finished, initialised network; two are layers that normalise features.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .convolution import channels_last
from .spectral_norm import SpectralNorm, spectral_norm
from .weights import SUPPORTED, MatrixNorm, check_layer


class WeightNorm(MatrixNorm):
    """The parametrization that scales each row of the reshaped weight to norm 1.

    This is the paper's form of weight normalization (section 3, after Salimans and Kingma 2016): it has no learned
    scale, so that the squared singular values of W sum to d_out.
    """

    def forward(self, weight: Tensor) -> Tensor:
        W = self.matrix(weight)
        scale = W.norm(dim=1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)  # (d_out, 1)
        if self.transposed:
            return self.from_matrix(W / scale, weight)
        return (weight / scale.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)


def weight_norm(module: nn.Module) -> nn.Module:
    """Normalise the rows of a layer's weight and return the layer. Raises what check_layer() raises."""
    check_layer(module)
    parametrize.register_parametrization(module, "weight", WeightNorm(module))
    return module


class LayerNorm(nn.GroupNorm):
    """Layer normalization over (C, H, W) with a gain and bias for each channel. Maps can have any size."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        # When compiling, torch 2.14 expects another memory order than the result will have: set one explicitly.
        return channels_last(y) if y.dim() == 4 and torch.compiler.is_compiling() else y


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization per channel of (N, C) or (N, C, H, W)."""

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() not in (2, 4):
            raise ValueError(f"expected (N, C) or (N, C, H, W), got {tuple(x.shape)}")


WEIGHT_NORMS = {"spectral": spectral_norm, "weight": weight_norm}
FEATURE_NORMS = {"batch": BatchNorm, "layer": LayerNorm}
D_NORMS = ("none", *WEIGHT_NORMS, *FEATURE_NORMS)


def check_d_norm(d_norm: str | Iterable[str]) -> tuple[str, ...]:
    """Return d_norm, one name or several, as a tuple. Raises ValueError if a name is unknown or two do not combine."""
    names = (d_norm,) if isinstance(d_norm, str) else tuple(d_norm)
    if unknown := [name for name in names if name not in D_NORMS]:
        raise ValueError(f"d_norm {unknown[0]!r} is not one of {', '.join(D_NORMS)}")
    if not names or len(set(names)) != len(names):
        raise ValueError("d_norm takes one or more different names")
    for group, what in ((WEIGHT_NORMS, "both rescale the weights"), (FEATURE_NORMS, "both normalise the features")):
        if len(both := [name for name in group if name in names]) > 1:
            raise ValueError(f"d_norm {' and '.join(both)} exclude each other: {what}")
    if "none" in names and len(names) > 1:
        raise ValueError("d_norm none cannot be combined with others")
    return names


def feature_norm(d_norm: Iterable[str], channels: int) -> nn.Module:
    """Return the feature normalization layer that d_norm names, or the identity."""
    for name in d_norm:
        if name in FEATURE_NORMS:
            return FEATURE_NORMS[name](channels)
    return nn.Identity()


def apply_weight_norm(network: nn.Module, d_norm: Iterable[str]) -> nn.Module:
    """Wrap every linear layer and convolution of an initialised network as d_norm asks; return the network."""
    for name in d_norm:
        if name in WEIGHT_NORMS:
            for layer in [module for module in network.modules() if isinstance(module, SUPPORTED)]:
                WEIGHT_NORMS[name](layer)
    return network


@contextlib.contextmanager
def iteration(network: nn.Module, enabled: bool) -> Iterator[None]:
    """Return a context in which training forwards advance spectral norm's u and v only if enabled."""
    before = {norm: norm.iterating for norm in network.modules() if isinstance(norm, SpectralNorm)}
    for norm in before:
        norm.iterating = enabled
    try:
        yield
    finally:
        for norm, value in before.items():
            norm.iterating = value
