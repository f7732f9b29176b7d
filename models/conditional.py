"""How networks know of classes: projection (Miyato and Koyama 2018, cGANs with projection discriminator), acgan (Odena
et al. 2017, with projection's generator) and concat (Mirza and Osindero 2014). What --conditional picks from.

Labels are (N,) int64 or, between classes, weights (N, K) of the classes in the dtype of the input, each row's sum 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .normalization import BatchNorm

Norm = Callable[[int], nn.Module]
Verdict = Tensor | tuple[Tensor, Tensor]  # D's logits, or these and the class logits


def rows_of(table: Tensor, labels: Tensor) -> Tensor:
    """The rows (N, d) of a table (K, d) that labels (N,) name, or their means under weights (N, K)."""
    if labels.is_floating_point():
        return labels.to(table.dtype) @ table
    try:
        return F.embedding(labels, table)
    except IndexError as error:  # of a CPU: to look at labels on another device would be to wait for it
        raise ValueError(f"labels are class numbers from 0 to {len(table) - 1}, not {labels.tolist()}"[:200]) from error


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(N, K): 1 for the class, 0 for the others; weights (N, K) as they are."""
    return rows_of(torch.eye(num_classes, dtype=dtype, device=labels.device), labels)


def latent(z: Tensor, z_dim: int) -> Tensor:
    """z as it is, or a ValueError where it is not (N, z_dim)."""
    if not torch.jit.is_tracing() and tuple(z.shape[1:]) != (z_dim,):  # a trace would warn of the comparison
        raise ValueError(f"z is (N, {z_dim}), such as torch.randn(16, G.z_dim), not {tuple(z.shape)}")
    return z


class Embedding(nn.Embedding):
    """A row for each class, for weights of the classes the mean row: labels -> (N, d). Xavier uniform."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return rows_of(self.weight, input)


def given(*inputs: Tensor | None) -> list[Tensor]:
    """What a network is called with, of z or images and of labels: those that there are."""
    return [found for found in inputs if found is not None]


# ---- Layers that take labels ---------------------------------------------------------------------------------------


class Labelled(nn.Module):
    """A layer whose forward takes labels beside its input, where there are any."""


def call(layer: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """layer(x), with the labels where it takes them."""
    return layer(x, labels) if labels is not None and isinstance(layer, Labelled) else layer(x)


class Sequential(nn.Sequential):
    """nn.Sequential that hands labels on to the layers that take them."""

    def forward(self, input: Tensor, labels: Tensor | None = None) -> Tensor:
        for layer in self:
            input = call(layer, input, labels)
        return input


class ConditionalBatchNorm(Labelled):
    """Batch norm of (N, C) or (N, C, H, W) with a scale and a shift of each class (Dumoulin et al. 2017, eq. 5).

    weight and bias are (K, C), 1 and 0 at the start; the statistics are of the whole batch, whatever its classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.statistics = BatchNorm(channels, affine=False)
        self.weight = nn.Parameter(torch.ones(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.statistics(x)
        # In h's precision, so that under autocast no map is widened.
        gain, shift = (rows_of(table, labels).to(h.dtype) for table in (self.weight, self.bias))
        shape = (*gain.shape, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(shape), h, gain.view(shape))


# ---- What a network does with labels -------------------------------------------------------------------------------


class Unlabelled(nn.Module):
    """A network without classes, and what the others share. features: the width of D's last hidden layer."""

    def __init__(self, num_classes: int, features: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes

    @classmethod
    def extra(cls, num_classes: int) -> int:
        """How many channels or numbers beside() adds to the network's input."""
        return 0

    def norm(self, plain: Norm) -> Norm:
        """What makes the batch norms of G that know of the class; plain is what makes the others."""
        return plain

    def beside(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The network's input: x (N, C) or (N, C, H, W), and the class beside it where it belongs there."""
        self.check(labels)
        return x

    def check(self, labels: Tensor | None) -> None:
        """ValueError where labels are missing, of the wrong shape or of no use. No value of theirs is looked at."""
        if labels is None:
            if self.num_classes:
                raise ValueError(f"a network of {self.num_classes} classes takes labels: G(z, labels), D(x, labels)")
            return
        if not self.num_classes:
            raise ValueError("a network without classes takes no labels")
        numbers = isinstance(labels, Tensor) and not labels.is_floating_point()
        if not isinstance(labels, Tensor) or tuple(labels.shape[1:]) != (() if numbers else (self.num_classes,)):
            given = f"{tuple(labels.shape)} {labels.dtype}" if isinstance(labels, Tensor) else repr(labels)
            wanted = f"(N,) integers or (N, {self.num_classes}) weights of the classes"
            raise ValueError(f"labels are a tensor of {wanted}, not {given}")

    def judged(self, logits: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        """D's logits (N, 1), with the label's share in them, from those without it and the features h.

        h is (N, C), or maps (N, C, H, W) that are sum-pooled. classify: (logits, class logits (N, K)) instead.
        """
        if classify:
            raise ValueError("only the D of acgan classifies")
        return logits


class ClassNorms(Unlabelled):
    """G of projection and of acgan: batch norms with tables of the classes."""

    def norm(self, plain: Norm) -> Norm:
        return lambda channels: ConditionalBatchNorm(channels, self.num_classes)


class Concatenation(Unlabelled):
    """G and D of concat: the class as one-hot beside z, and as constant maps (numbers, in the MLP) beside the image."""

    @classmethod
    def extra(cls, num_classes: int) -> int:
        return num_classes

    def beside(self, x: Tensor, labels: Tensor | None) -> Tensor:
        self.check(labels)
        assert labels is not None  # that is checked
        classes = one_hot(labels, self.num_classes, x.dtype)
        return torch.cat([x, classes.view(*classes.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])], dim=1)


class Projection(Unlabelled):
    """D of projection: logit = psi(h) + <e_y, h> (Miyato and Koyama 2018, eq. 5)."""

    def __init__(self, num_classes: int, features: int = 0) -> None:
        super().__init__(num_classes)
        self.embedding = Embedding(num_classes, features)

    def judged(self, logits: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        logits = logits + (self.embedding(labels) * sum_pooled(h)).sum(dim=1, keepdim=True)
        return super().judged(logits, h, labels, classify)


class Classifier(Unlabelled):
    """D of acgan: the label has no share in the logit; a second head on the same features tells the classes apart."""

    def __init__(self, num_classes: int, features: int = 0) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(features, num_classes)

    def judged(self, logits: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        return (logits, self.head(sum_pooled(h))) if classify else logits


def sum_pooled(h: Tensor) -> Tensor:
    return h.sum(dim=(2, 3)) if h.dim() == 4 else h


# What --conditional names: (what G does with labels, what D does)
CONDITIONAL: dict[str, tuple[type[Unlabelled], type[Unlabelled]]] = {
    "none": (Unlabelled, Unlabelled),
    "projection": (ClassNorms, Projection),
    "acgan": (ClassNorms, Classifier),
    "concat": (Concatenation, Concatenation),
}


def check_conditional(conditional: str, num_classes: int) -> None:
    """ValueError for an unknown name, and for classes that are missing or of no use."""
    if conditional not in CONDITIONAL:
        raise ValueError(f"conditional {conditional!r} is not one of {', '.join(CONDITIONAL)}")
    if conditional == "none" and num_classes:
        raise ValueError(f"num_classes {num_classes} needs conditional: one of {', '.join([*CONDITIONAL][1:])}")
    if conditional != "none" and num_classes < 2:
        raise ValueError(f"conditional {conditional} needs two classes or more, not {num_classes}")
