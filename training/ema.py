"""Exponential moving averages: of G's weights, the copy that is sampled and scored, and of D's logits."""

import copy

import torch
from torch import Tensor, nn


class LogitAverages:
    """The moving averages of D's mean logits on real images and on samples: what LeCam's penalty compares with.

    As in the authors' code, up to step `start` they are the last update's means, and the penalty does not count. Unlike
    there, it sees them as they were before its update, the same for all parts of a batch and on all ranks.
    """

    DECAY = 0.9  # of Tseng et al. 2021 on CIFAR-10

    def __init__(self, start: int) -> None:
        self.start = start
        self.values = torch.zeros(2)  # of real images, of samples
        self.active = False

    def begin(self, step: int) -> None:
        """What follows are updates after so many steps."""
        self.active = step >= self.start

    def update(self, means: Tensor) -> None:
        """Follow the means (2,) over the whole batch of an update of D."""
        self.values = torch.lerp(means, self.values, self.DECAY) if self.active else means


class EMA:
    """A copy of G whose parameters follow G's; its buffers are G's, copied.

    Averaged u and v of spectral norm would no longer be unit vectors, and averaged counters no counts.
    """

    def __init__(self, G: nn.Module) -> None:
        self.G = copy.deepcopy(G).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, G: nn.Module, decay: float) -> None:
        """Follow G after one of its updates: decay of the average, and 1 - decay of G."""
        torch._foreach_lerp_(list(self.G.parameters()), list(G.parameters()), 1 - decay)
        if buffers := list(G.buffers()):
            torch._foreach_copy_(list(self.G.buffers()), buffers)
