"""An exponential moving average of G's weights, the copy that is sampled and scored."""

import copy

import torch
from torch import nn


class EMA:
    """A copy of G whose parameters follow G's; its buffers are G's, copied.

    Averaged u and v of spectral norm would no longer be unit vectors, and averaged counters no counts. The decay warms
    up as (1 + step) / (10 + step), so that the random initial weights are soon forgotten.
    """

    def __init__(self, G: nn.Module, decay: float) -> None:
        self.G = copy.deepcopy(G).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, G: nn.Module, step: int) -> None:
        """Follow G after its update number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.G.parameters()), list(G.parameters()), 1 - decay)
        if buffers := list(G.buffers()):
            torch._foreach_copy_(list(self.G.buffers()), buffers)
