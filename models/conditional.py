"""Class-conditional networks, the choices of --conditional: projection (Miyato and Koyama 2018, cGANs with projection
discriminator), acgan (Odena et al. 2017, with projection's generator) and concat (Mirza and Osindero 2014).

Labels are (N,) int64 or, to mix classes, weights (N, K) in the dtype of the input, in which each row sums to 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .normalization import BatchNorm
from .precision import full_precision, widened

Norm = Callable[[int], nn.Module]
Verdict = Tensor | tuple[Tensor, Tensor]  # D's logits, or (D's logits, class logits)


def rows_of(table: Tensor, labels: Tensor) -> Tensor:
    """Return the rows (N, d) of a table (K, d) for labels (N,), or the weighted mean rows for weights (N, K)."""
    if labels.is_floating_point():
        return labels.to(table.dtype) @ table
    try:
        return F.embedding(labels, table)
    except IndexError as error:  # on a CPU; to check on another device would mean waiting for it
        raise ValueError(f"labels must be from 0 to {len(table) - 1}, not {labels.tolist()}"[:200]) from error


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Encode labels (N,) as one-hot (N, K); weights (N, K) stay as they are."""
    return rows_of(torch.eye(num_classes, dtype=dtype, device=labels.device), labels)


def latent(z: Tensor, z_dim: int) -> Tensor:
    """Return z. Raises ValueError if it is not (N, z_dim)."""
    if not torch.jit.is_tracing() and tuple(z.shape[1:]) != (z_dim,):  # a trace would warn of the comparison
        raise ValueError(f"z must be (N, {z_dim}), such as torch.randn(16, G.z_dim), not {tuple(z.shape)}")
    return z


class Embedding(nn.Embedding):
    """An embedding that also takes weights of the classes: labels (N,) or (N, K) -> (N, d). Xavier uniform."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return rows_of(self.weight, input)


def given(*inputs: Tensor | None) -> list[Tensor]:
    """Return the inputs of a network without those that are None, such as missing labels."""
    return [found for found in inputs if found is not None]


# ---- Layers that take labels ---------------------------------------------------------------------------------------


class Labelled(nn.Module):
    """A layer whose forward takes labels after its input."""


def call(layer: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """Call layer(x), with the labels if it takes them."""
    return layer(x, labels) if labels is not None and isinstance(layer, Labelled) else layer(x)


class Sequential(nn.Sequential):
    """nn.Sequential that passes labels to the layers that take them."""

    def forward(self, input: Tensor, labels: Tensor | None = None) -> Tensor:
        for layer in self:
            input = call(layer, input, labels)
        return input


class ConditionalBatchNorm(Labelled):
    """Batch norm of (N, C) or (N, C, H, W) with a scale and shift for each class (Dumoulin et al. 2017, eq. 5).

    weight and bias are (K, C) and start at 1 and 0. The statistics are those of the whole batch, over all classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.statistics = BatchNorm(channels, affine=False)
        self.weight = nn.Parameter(torch.ones(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.statistics(x)
        # In h's precision, so that autocast does not widen the maps to float32.
        gain, shift = (rows_of(table, labels).to(h.dtype) for table in (self.weight, self.bias))
        shape = (*gain.shape, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(shape), h, gain.view(shape))


# ---- How a network uses labels -------------------------------------------------------------------------------------


class Unlabelled(nn.Module):
    """Labels are refused; the base of the ways to use them. features: the width of D's last hidden layer."""

    def __init__(self, num_classes: int, features: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes

    @classmethod
    def extra(cls, num_classes: int) -> int:
        """Return how many channels or numbers beside() adds to the network's input."""
        return 0

    def norm(self, plain: Norm) -> Norm:
        """Return the factory of G's class-conditional batch norms, given `plain`, the factory of its other ones."""
        return plain

    def beside(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return the network's input: x (N, C) or (N, C, H, W). The class is appended if it belongs there."""
        self.check(labels)
        return x

    def check(self, labels: Tensor | None) -> None:
        """Raise ValueError if labels are missing, unused or of the wrong shape. Their values are not checked."""
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
            raise ValueError(f"labels must be a tensor of {wanted}, not {given}")

    def verdict(self, head: nn.Module, flat: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        """Return judged(head(flat), h, ...) in float32: bfloat16 would round logits to 8 bits (docs/performance.md)."""
        with full_precision(h):
            return self.judged(head(widened(flat)), widened(h), labels, classify)

    def judged(self, logits: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        """Return D's logits (N, 1) with the label's term added, if the label has one.

        h: D's features (N, C), or maps (N, C, H, W), sum-pooled. classify: return (logits, class logits (N, K)).
        Raises ValueError if classify is asked of a D that has no class logits.
        """
        if classify:
            raise ValueError("only the D of acgan classifies")
        return logits


class ClassNorms(Unlabelled):
    """G of projection and acgan: class-conditional batch norms."""

    def norm(self, plain: Norm) -> Norm:
        return lambda channels: ConditionalBatchNorm(channels, self.num_classes)


class Concatenation(Unlabelled):
    """G and D of concat: the one-hot class is appended to z and to images. For images it is constant maps."""

    @classmethod
    def extra(cls, num_classes: int) -> int:
        return num_classes

    def beside(self, x: Tensor, labels: Tensor | None) -> Tensor:
        self.check(labels)
        assert labels is not None  # checked above
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
    """D of acgan: the logit ignores the label; a second head on the same features classifies."""

    def __init__(self, num_classes: int, features: int = 0) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(features, num_classes)

    def judged(self, logits: Tensor, h: Tensor, labels: Tensor | None, classify: bool) -> Verdict:
        return (logits, self.head(sum_pooled(h))) if classify else logits


def sum_pooled(h: Tensor) -> Tensor:
    return h.sum(dim=(2, 3)) if h.dim() == 4 else h


# Each choice of --conditional: (how G uses labels, how D does)
CONDITIONAL: dict[str, tuple[type[Unlabelled], type[Unlabelled]]] = {
    "none": (Unlabelled, Unlabelled),
    "projection": (ClassNorms, Projection),
    "acgan": (ClassNorms, Classifier),
    "concat": (Concatenation, Concatenation),
}


def check_conditional(conditional: str, num_classes: int) -> None:
    """Raise ValueError if the name is unknown, or classes are missing or unused."""
    if conditional not in CONDITIONAL:
        raise ValueError(f"conditional {conditional!r} is not one of {', '.join(CONDITIONAL)}")
    if conditional == "none" and num_classes:
        raise ValueError(f"num_classes {num_classes} needs conditional: one of {', '.join([*CONDITIONAL][1:])}")
    if conditional != "none" and num_classes < 2:
        raise ValueError(f"conditional {conditional} needs two classes or more, not {num_classes}")
