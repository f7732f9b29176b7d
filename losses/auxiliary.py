"""What is added to the adversarial losses of both networks where D tells the classes apart."""

from torch import Tensor
from torch.nn import functional as F


def class_cross_entropy(class_logits: Tensor, labels: Tensor) -> Tensor:
    """AC-GAN's: the mean of -log p(label) under D's class logits (N, K) (Odena et al. 2017, eq. 3). A scalar.

    labels (N,) int64, or weights of the classes (N, K). D learns from it on real images, G on its own samples.
    """
    return F.cross_entropy(class_logits, labels)
