"""Self-attention between the pixels of a feature map: Zhang et al. 2019 (SAGAN, arXiv 1805.08318), section 3."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import channels_last

LEAST = 2  # pixels a side: keys and values are pooled


class SelfAttention(nn.Module):
    """x + scale * attention(x), (N, C, H, W) -> (N, C, H, W). The scale is learned and starts at 0.

    As in the authors' code, queries and keys have C/8 channels and values C/2, keys and values are max-pooled 2x2,
    layers have no biases, and the products of queries and keys are not divided by sqrt(C/8).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = (nn.Conv2d(channels, narrow, 1, bias=False) for _ in range(2))
        self.value, self.output = nn.Conv2d(channels, half, 1, bias=False), nn.Conv2d(half, channels, 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # (N, C/8, HW)
        key, value = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))  # (N, ., HW/4)
        attention = torch.bmm(query.transpose(1, 2), key).softmax(dim=2)  # (N, HW, HW/4)
        found = torch.bmm(value, attention.transpose(1, 2).to(value.dtype))  # (N, C/2, HW)
        return x + self.scale * self.output(channels_last(found.unflatten(2, x.shape[2:])))


def attention_at(side: int, attention: int | None, channels: int) -> list[nn.Module]:
    """Return a list of the attention layer after a feature map of this side, or []."""
    return [SelfAttention(channels)] if side == attention else []


def check_attention(attention: int, model: str, sides: Iterable[int]) -> None:
    """Raise ValueError unless attention is one of sides. These are the feature map sides that both networks have."""
    there = [side for side in sides if side >= LEAST]
    if not there:
        raise ValueError(f"attention {attention} is for --model dcgan or resnet, not {model}")
    if attention not in there:
        raise ValueError(
            f"attention {attention}: at this size, {model} has feature maps of {', '.join(map(str, there))} pixels a "
            "side in both networks"
        )
