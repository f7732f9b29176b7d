"""Channels-last memory, and convolutions that skip the kernel taps which meet only padding."""

from torch import Tensor, nn
from torch.nn import functional as F


def channels_last(x: Tensor) -> Tensor:
    """Return x (N, C, H, W) with its channels innermost in memory. Convolutions are then faster on a CPU."""
    n, channels, height, width = x.shape
    if channels == 1:  # the same memory, but later layers go by the strides
        return x.reshape(n, height, width, 1).permute(0, 3, 1, 2)
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """A square convolution (N, C, H, W) -> (N, C', H', W') with padding 1, without groups or dilation.

    If the output is a single pixel, kernel taps that meet only padding are not read (8 of 9 for 3x3 on a 1x1 map).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        if max(height, width) + 2 >= self.kernel_size[0] + self.stride[0]:
            return super().forward(input)
        return F.conv2d(input, self.weight[:, :, 1 : 1 + height, 1 : 1 + width], self.bias)


class ConvTranspose2d(nn.ConvTranspose2d):
    """A 4x4 transposed convolution of stride 2 and padding 1: (N, C, H, W) -> (N, C', 2H, 2W).

    If the input is a single pixel, the outer taps, which fall outside the output, are not read.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if input.shape[2:] != (1, 1):
            return super().forward(input, output_size)
        return F.conv_transpose2d(input, self.weight[:, :, 1:3, 1:3], self.bias)
