"""Adversarial losses, and the regularizers of D."""

from .adversarial import LOSSES, PAIRED, accuracy, boundary
from .regularizers import REGULARIZERS, Regularizer, finite_difference

__all__ = ["LOSSES", "PAIRED", "REGULARIZERS", "Regularizer", "accuracy", "boundary", "finite_difference"]
