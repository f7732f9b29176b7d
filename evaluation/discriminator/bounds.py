"""Upper bounds of Lipschitz constants, composed of the layers' norms (Miyato et al. 2018, section 2.1, eq. 7)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import dcgan, mlp, r3gan, resnet
from models.attention import SelfAttention
from models.conditional import Projection
from models.resampling import Downsample

POOLING = 0.5  # the norm of 2x2 average pooling: each output is half an inner product with a unit vector

Norms = dict[nn.Module, float]
Shapes = dict[nn.Module, tuple[int, ...]]


def lipschitz(module: nn.Module, norms: Norms, shapes: Shapes) -> float:
    """An upper bound of a module's Lipschitz constant in eval mode, for Euclidean norms.

    norms: {linear layer or convolution: its norm}; shapes: {module: shape of its input without N}.
    Raises ValueError if no bound is known for the module, with the reason.
    """
    for kind in type(module).__mro__:
        if kind in BOUNDS:
            return BOUNDS[kind](module, norms, shapes)
    kind = type(module)
    raise ValueError(f"BOUNDS in evaluation/discriminator/bounds.py has no entry for {kind.__module__}.{kind.__name__}")


def _of_sequence(modules: Iterable[nn.Module], norms: Norms, shapes: Shapes) -> float:
    return math.prod(lipschitz(module, norms, shapes) for module in modules)


def _of_batch_norm(module: _BatchNorm, *_: Any) -> float:
    if module.running_var is None:
        raise ValueError("a batch norm without running statistics scales by the statistics of the batch")
    gain = 1.0 if module.weight is None else module.weight.double()
    return (gain / (module.running_var.double() + module.eps).sqrt()).abs().max().item()


def _of_group_norm(module: nn.GroupNorm, *_: Any) -> float:
    # With c the centred input of n numbers and s^2 = |c|^2 / n + eps, the Jacobian is (I - c c^T / (n s^2)) / s after a
    # projection: at most 1 / s, and that is 1 / sqrt(eps) at c = 0, so that no smaller bound holds for all inputs.
    gain = 1.0 if module.weight is None else module.weight.abs().max().item()
    return gain / math.sqrt(module.eps)


def _of_attention(*_: Any) -> float:
    raise ValueError("dot-product attention is not Lipschitz (Kim et al. 2021, arXiv 2006.04710, theorem 3.1)")


def _of_down_block(block: resnet.DownBlock, norms: Norms, shapes: Shapes) -> float:
    residual = _of_sequence((block.norm1, block.conv1, block.norm2, block.conv2), norms, shapes)  # and ReLUs
    return residual + lipschitz(block.shortcut, norms, shapes) * (POOLING if block.down else 1.0)


def _of_head(head: Any, classes: nn.Module, norms: Norms) -> float:
    """Bound the last layer. With a projection: the largest |psi + e_y| over classes y, e_y at each pixel of a map."""
    if not isinstance(classes, Projection):
        return norms[head]
    rows = classes.embedding.weight  # (K, C)
    psi = head.weight.view(1, rows.size(1), -1)  # (1, C, pixels), one if the map is pooled before
    return (psi + rows.unsqueeze(2)).flatten(1).norm(dim=1).max().item()


def _of_resnet(D: resnet.Discriminator, norms: Norms, shapes: Shapes) -> float:
    _, height, width = shapes[D.norm]
    summing = math.sqrt(height * width)  # each channel's inner product with a vector of ones
    return summing * _of_sequence((D.blocks, D.norm), norms, shapes) * _of_head(D.head, D.classes, norms)


def _of_dcgan(D: dcgan.Discriminator, norms: Norms, shapes: Shapes) -> float:
    return lipschitz(D.layers, norms, shapes) * _of_head(D.head, D.classes, norms)


def _of_mlp(D: mlp.Discriminator, norms: Norms, shapes: Shapes) -> float:
    *hidden, head = D.layers
    return _of_sequence(hidden, norms, shapes) * _of_head(head, D.classes, norms)


def _of_r3gan_block(block: r3gan.Block, norms: Norms, shapes: Shapes) -> float:
    return 1 + norms[block.conv1] * norms[block.conv2] * norms[block.conv3]  # and leaky ReLUs


def _of_r3gan(D: r3gan.Discriminator, norms: Norms, shapes: Shapes) -> float:
    classes: Any = D.classes
    rows = classes.embedding.weight.norm(dim=1).max().item() if D.projects else 1.0  # the logit is <head(h), e_y>
    return norms[D.from_image] * lipschitz(D.layers, norms, shapes) * norms[D.depthwise] * norms[D.head] * rows


BOUNDS: dict[type, Callable[..., float]] = {
    nn.Linear: lambda module, norms, shapes: norms[module],
    nn.Conv2d: lambda module, norms, shapes: norms[module],
    nn.Identity: lambda *_: 1.0,
    nn.Flatten: lambda *_: 1.0,
    nn.ReLU: lambda *_: 1.0,
    nn.LeakyReLU: lambda module, *_: max(1.0, abs(module.negative_slope)),
    _BatchNorm: _of_batch_norm,
    nn.GroupNorm: _of_group_norm,
    nn.Sequential: _of_sequence,
    resnet.DownBlock: _of_down_block,
    resnet.Discriminator: _of_resnet,
    dcgan.Discriminator: _of_dcgan,
    mlp.Discriminator: _of_mlp,
    # Along a side the filter's gain is cos^3 of half the frequency. Keeping every second pixel adds two frequencies up,
    # with cos^6 + sin^6 <= 1, and halves the squares: 1/sqrt(2) per side, as for pooling.
    Downsample: lambda *_: POOLING,
    r3gan.Block: _of_r3gan_block,
    r3gan.Discriminator: _of_r3gan,
    SelfAttention: _of_attention,
}

# The layers of each D that see the image
FIRST: dict[type, Callable[..., tuple[nn.Module, ...]]] = {
    resnet.Discriminator: lambda D: (D.blocks[0].conv1, D.blocks[0].shortcut),
    dcgan.Discriminator: lambda D: (D.layers[0],),
    mlp.Discriminator: lambda D: (D.layers[0],),
    r3gan.Discriminator: lambda D: (D.from_image,),
}


def beside_image(D: Any) -> dict[nn.Module, int]:
    """{layer that sees the image: number of its last input channels that encode the class (conditional: concat)}."""
    found = FIRST.get(type(D))
    return dict.fromkeys(found(D), D.classes.extra(D.num_classes)) if found else {}
