"""Exponential moving averages of G's weights, for sampling and scoring, and of D's logits."""

import copy

import torch
from torch import Tensor, nn


class LogitAverages:
    """Moving averages of D's mean logits on real images and on samples, for LeCam's penalty.

    As in the authors' code, before step `start` they are the last update's means, and the penalty is off. Unlike there,
    the penalty uses the averages from before its update, the same for all parts of a batch and on all ranks.
    """

    DECAY = 0.9  # of Tseng et al. 2021 on CIFAR-10

    def __init__(self, start: int) -> None:
        self.start = start
        self.values = torch.zeros(2)  # of real images, of samples
        self.active = False

    def begin(self, step: int) -> None:
        """Prepare for the updates that follow `step` steps."""
        self.active = step >= self.start

    def update(self, means: Tensor) -> None:
        """Include the means (2,) over the whole batch of one update of D."""
        self.values = torch.lerp(means, self.values, self.DECAY) if self.active else means


class EMA:
    """A copy of G with the exponential moving average of its parameters; buffers are copied.

    Averaged u and v of spectral norm would not be unit vectors, and averaged counters would not be whole numbers.
    """

    def __init__(self, G: nn.Module) -> None:
        self.G = copy.deepcopy(G).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, G: nn.Module, decay: float) -> None:
        """Average in G's parameters after one of its updates: decay * average + (1 - decay) * G."""
        torch._foreach_lerp_(list(self.G.parameters()), list(G.parameters()), 1 - decay)
        if buffers := list(G.buffers()):
            torch._foreach_copy_(list(self.G.buffers()), buffers)
