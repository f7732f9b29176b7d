"""Scalars from logits: adversarial losses and what is added to them."""

from .adversarial import LOSSES, PAIRED, accuracy, boundary
from .auxiliary import class_cross_entropy
from .regularizers import REGULARIZERS, Regularizer

__all__ = ["LOSSES", "PAIRED", "REGULARIZERS", "Regularizer", "accuracy", "boundary", "class_cross_entropy"]
