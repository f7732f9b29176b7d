"""What stays in float32 when the networks run in half precision: spectral norm, D's logits and G's tanh."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast for x's device, which would compute products in half precision."""
    kind = x.device.type
    enabled = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else contextlib.nullcontext()


def widened(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 if it is that."""
    return x if x.dtype == torch.float64 else x.float()


class Tanh(nn.Tanh):
    """tanh in float32. In bfloat16, values below -0.998 become -1, where its gradient 1 - tanh^2 is 0."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(widened(input))
