"""Scalars from logits: adversarial losses and what is added to D's."""

from .adversarial import LOSSES, accuracy
from .regularizers import REGULARIZERS, Regularizer

__all__ = ["LOSSES", "REGULARIZERS", "Regularizer", "accuracy"]
