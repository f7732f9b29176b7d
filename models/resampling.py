"""Upsample-then-convolve and convolve-then-pool, each as one exact convolution of stride 2; and R3GAN's resampling.

Nearest upsampling followed by a 3x3 convolution is a transposed 4x4 convolution, and a 3x3 convolution followed by 2x2
average pooling is a 4x4 convolution: the 4x4 kernel is a sum of four shifted 3x3 kernels, borders included. The
parameter stays the 3x3 weight, so that normalizations act on what the paper normalises.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def positions() -> Tensor:
    """Return (9, 16): 1 if a tap of a 3x3 kernel, in one of four positions, falls on this tap of a 4x4 one, else 0."""
    eye = torch.eye(4)
    shifted = eye[:3] + eye[1:]  # (3, 4), along one side
    return torch.kron(shifted, shifted)


class Spread(nn.Conv2d):
    """A 3x3 convolution and a 2x resampling in one: a 4x4 convolution of stride 2."""

    positions: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.register_buffer("positions", positions(), persistent=False)

    def spread(self, weight: Tensor) -> Tensor:
        """Sum a 3x3 kernel over its four positions in a 4x4 one: (..., 3, 3) -> (..., 4, 4)."""
        taps = weight.reshape(-1, 9) @ self.positions.to(weight.dtype)
        return taps.view(*weight.shape[:-2], 4, 4)


class UpsampleConv2d(Spread):
    """2x nearest upsampling, then a 3x3 convolution with padding 1: (N, C, H, W) -> (N, C', 2H, 2W)."""

    def forward(self, input: Tensor) -> Tensor:
        kernel = self.spread(self.weight.flip(2, 3).transpose(0, 1))  # (C, C', 4, 4)
        return F.conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


class ConvAvgPool2d(Spread):
    """A 3x3 convolution with padding 1, then 2x2 average pooling: (N, C, H, W) -> (N, C', H/2, W/2), H and W even."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.spread(self.weight) / 4, self.bias, stride=2, padding=1)


class Resampling(nn.Module):
    """The filter of Upsample and Downsample: R3GAN's [1, 2, 1] (Huang et al. 2024), convolved with [1, 1].

    It is applied to each channel, with zeros beyond the borders, as in the authors' code.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(line, line), persistent=False)  # (4, 4), with the sum 1

    def kernels(self, x: Tensor) -> Tensor:
        """Return one kernel for each channel of x: (C, 1, 4, 4)."""
        return self.kernel.to(x.dtype).expand(x.size(1), 1, 4, 4)


class Upsample(Resampling):
    """(N, C, H, W) -> (N, C, 2H, 2W). Each way, a pixel is 3/4 the nearer one plus 1/4 the farther one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, 4 * self.kernels(x), stride=2, padding=1, groups=x.size(1))


class Downsample(Resampling):
    """(N, C, H, W) -> (N, C, H/2, W/2), H and W even: the transpose of Upsample, divided by 4."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernels(x), stride=2, padding=1, groups=x.size(1))
