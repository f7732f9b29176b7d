"""Convolutions by whichever exact way is fastest: the library's, Winograd's minimal filtering, or one matrix product.

Parameters and results are those of nn.Conv2d and nn.ConvTranspose2d; which way pays was measured (docs/performance.md).
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .modes import at_once, constants, is_plain, transformed

OUTPUTS = 4  # in a tile, along one side
# F(4, 3) of Lavin and Gray 2016 (arXiv 1509.09308, section 4.1): 4 outputs of a 3-tap filter from 6 products, not 12.
TILE_B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
TILE_G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # over 24
TILE_A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
# F(4, 2) from the points 0, 1, -1, 2 and infinity, in the same way: a 4-tap filter of stride 2 is one of 2 taps on the
# even pixels and one on the odd, 5 products in place of 8 for each.
PAIR_B = ((2, -1, -2, 1, 0), (0, 2, 1, -1, 0), (0, -2, 3, -1, 0), (0, -1, 0, 1, 0), (0, 2, -1, -2, 1))
PAIR_G = ((3, 0), (3, 3), (1, -1), (1, 2), (0, 6))  # over 6
PAIR_A = ((1, 1, 1, 1, 0), (0, 1, -1, 2, 0), (0, 1, 1, 4, 0), (0, 1, -1, 8, 1))
FILTERS = {3: (TILE_B, TILE_G, TILE_A), 4: (PAIR_B, PAIR_G, PAIR_A)}

ROWS_MIN_CHANNELS, ROWS_MIN_WIDTH = 128, 8  # from where Winograd's way along the rows is the faster one on a CPU
SQUARES_MIN_CHANNELS, SQUARES_MAX_AREA = 256, 64  # and along rows and columns at once
STRIDED_MIN_IMAGES = 128  # of 8x8, from where that pays with a stride
LAID_OUT_MIN_CHANNELS = 128  # from where the layout of a weight in memory is worth its while
FEW_OUTPUTS_MIN_CHANNELS = 64  # from where an image (of at most 3 channels) is better made of its taps


def channels_last(x: Tensor) -> Tensor:
    """The same (N, C, H, W) with the channels innermost in memory, as every way of convolving wants them.

    In a transform of torch.func, which lays out memory by itself, x as it is.
    """
    if transformed():
        return x
    if x.size(1) == 1:  # lies so anyway, but has to say it: its strides would name the other layout to what follows
        return x.reshape(x.size(0), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def lay_out(network: nn.Module) -> nn.Module:
    """Lay the weights of wide strided convolutions in memory as those want them, channels innermost.

    Every forward and backward would else copy them. Returns the network.
    """
    convolutions = (layer for layer in network.modules() if isinstance(layer, (Conv2d, ConvTranspose2d)))
    for layer in convolutions:
        if layer.stride == (2, 2) and min(layer.in_channels, layer.out_channels) >= LAID_OUT_MIN_CHANNELS:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return network


@constants
def _row_matrices(width: int, dtype: torch.dtype, kernel: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """B of a row with its zero padding (tiles * points * stride, width), G (points * stride, kernel), and A of a row
    (width / stride, tiles * points)."""
    B_tile, G_tile, A_tile = (torch.tensor(matrix, dtype=torch.float64, device="cpu") for matrix in FILTERS[kernel])
    stride, points = kernel - 2, len(B_tile)
    tiles = width // stride // OUTPUTS
    B, G = B_tile.new_zeros(tiles, points, stride, width + 2), G_tile.new_zeros(points, stride, kernel)
    for phase in range(stride):
        G[:, phase, phase::stride] = G_tile / G_tile.max()
        for tile in range(tiles):
            first = OUTPUTS * stride * tile + phase
            B[tile, :, phase, first : first + points * stride : stride] = B_tile
    A = torch.block_diag(*[A_tile] * tiles)
    return B.flatten(0, 2)[:, 1:-1].to(dtype).contiguous(), G.flatten(0, 1).to(dtype), A.to(dtype)


@constants
def _square_matrices(height: int, width: int, dtype: torch.dtype, kernel: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """The same in both directions: B (tiles * points^2 * stride^2, height * width), G as above, A likewise."""
    (B_h, G, A_h), (B_w, _, A_w) = (_row_matrices(side, torch.float64, kernel) for side in (height, width))
    stride, points = kernel - 2, len(G) // (kernel - 2)
    rows, columns = (side // stride // OUTPUTS for side in (height, width))
    B = torch.kron(B_h, B_w).view(rows, points, stride, columns, points, stride, -1)
    B = B.permute(0, 3, 1, 4, 2, 5, 6).flatten(0, 5)  # tile by tile, in each point by point
    A = torch.kron(A_h, A_w).unflatten(1, (rows, points, columns, points)).transpose(2, 3).flatten(1, 4)
    return B.to(dtype).contiguous(), G.to(dtype), A.to(dtype).contiguous()


def winograd_rows(x: Tensor, weight: Tensor) -> Tensor:
    """F.conv2d(x, weight, padding=1) for x (N, C, H, W), W a multiple of 4, and a weight (C', C, 3, 3): 6/12 products.

    B and A act along the rows; between them the filter's columns remain, as one convolution with six groups.
    """
    n, channels, height, width = x.shape
    out_channels, tiles = weight.size(0), width // OUTPUTS
    B, G, A = _row_matrices(width, x.dtype)
    points = len(G)
    rows = x.permute(0, 2, 3, 1).reshape(n * height, width, channels)
    V = torch.bmm(B.expand(n * height, -1, -1), rows)  # (N H, tiles * 6, C)
    # All rows of an image in one long row, where the filter's three taps lie `tiles` apart: for such a kernel oneDNN
    # finds the gradient of the weight faster than for a (3, 1) one.
    V = V.view(n, 1, height * tiles, points * channels).permute(0, 3, 1, 2)
    U = (weight.reshape(-1, 3) @ G.t()).t().reshape(points * out_channels, channels, 1, 3)
    M = F.conv2d(V, U, padding=(0, tiles), dilation=(1, tiles), groups=points)
    M = M.permute(0, 2, 3, 1).reshape(n * height, tiles * points, out_channels)
    return torch.bmm(A.expand(n * height, -1, -1), M).view(n, height, width, out_channels).permute(0, 3, 1, 2)


def winograd_squares(x: Tensor, weight: Tensor) -> Tensor:
    """The same for H and W multiples of 4, in rows and columns at once: 36/144 products, all of them in 36 matrices.

    A weight (C', C, 4, 4) is F.conv2d(x, weight, stride=2, padding=1), H and W multiples of 8: 100/256 in 25 matrices.
    """
    n, channels, height, width = x.shape
    out_channels, kernel = len(weight), weight.size(-1)
    stride = kernel - 2
    B, G, A = _square_matrices(height, width, x.dtype, kernel)
    points = len(G) // stride
    V = torch.bmm(B.expand(n, -1, -1), x.permute(0, 2, 3, 1).reshape(n, height * width, channels))
    U = (G @ weight.permute(2, 3, 1, 0).reshape(kernel, -1)).view(len(G), kernel, -1)  # the kernel's columns, then rows
    U = torch.bmm(G.expand(len(G), -1, -1), U).view(points, stride, points, -1).transpose(1, 2)
    U = U.reshape(points**2, stride**2 * channels, out_channels)
    M = torch.bmm(V.view(-1, points**2, stride**2 * channels).transpose(0, 1), U)  # (points^2, N tiles, C')
    M = M.transpose(0, 1).reshape(n, -1, out_channels)
    y = torch.bmm(A.expand(n, -1, -1), M)
    return y.view(n, height // stride, width // stride, out_channels).permute(0, 3, 1, 2)


def few_outputs_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """F.conv2d(x, weight, padding=1) by a 1x1 convolution to the nine taps of each output, which are then added up."""
    n, channels, height, width = x.shape
    taps = weight.flip(2, 3).flatten(2).transpose(1, 2).reshape(-1, weight.size(1))  # (C' * 9, C)
    M = x.permute(0, 2, 3, 1).reshape(-1, channels) @ taps.t()  # so that x's gradient has the layout of x
    return channels_last(F.fold(M.view(n, height * width, -1).transpose(1, 2), (height, width), 3, padding=1))


def single_pixel_conv2d(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """F.conv2d for a map from which a single pixel comes out: each pixel of x meets one tap, the kernel is a matrix."""
    height, width = x.shape[2:]
    W = weight.permute(0, 2, 3, 1)[:, padding : padding + height, padding : padding + width]
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), W.flatten(1)).view(len(x), -1, 1, 1)


def takes_other_ways(x: Tensor, channels: int) -> bool:
    """Whether x is what the ways above were made and measured for: full (N, channels, H, W) in float32 or float64.

    Not on a GPU, where cuDNN chooses among such ways itself, in a mode that makes a graph or transforms (where the size
    of the batch must not choose), nor in half precision or under autocast, whose rounding Winograd's way would amplify.
    """
    return (
        at_once()
        and is_plain(x)
        and x.is_cpu
        and x.dim() == 4
        and x.size(1) == channels
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


def is_square(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a layer does the same along both sides, by numbers, zeros around them, no groups and no dilation."""
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    return (
        type(kernel) is type(stride) is type(padding) is tuple
        and kernel[0] == kernel[1]
        and stride[0] == stride[1]
        and padding[0] == padding[1]
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and layer.dilation == (1, 1)
    )


class Conv2d(nn.Conv2d):
    """nn.Conv2d, by the way that is fastest for the shape at hand: the same arguments, inputs and errors."""

    padding: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:
        if takes_other_ways(input, self.in_channels):
            images, _, height, width = input.shape
            way = self._way(images, height, width)
            if way is not None:
                y = way(input, self.weight)
                return y if self.bias is None else y + self.bias.view(-1, 1, 1)
        return super().forward(input)

    def _way(self, images: int, height: int, width: int) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The function that is faster than the library's for so many maps of this size, or None."""
        if not is_square(self):
            return None
        kernel, stride, padding = self.kernel_size[0], self.stride[0], self.padding[0]
        least, side = min(height, width), max(height, width)
        if kernel <= least + 2 * padding and side + 2 * padding < kernel + stride and side + padding <= kernel:
            return functools.partial(single_pixel_conv2d, padding=padding)
        channels = min(self.in_channels, self.out_channels)
        if (kernel, stride, padding) == (4, 2, 1) and (height, width) == (8, 8):
            pays = channels >= SQUARES_MIN_CHANNELS and images >= STRIDED_MIN_IMAGES
            return winograd_squares if pays else None
        if (kernel, stride, padding) != (3, 1, 1) or width % OUTPUTS:
            return None
        if self.out_channels <= 3 and self.in_channels >= FEW_OUTPUTS_MIN_CHANNELS and width >= ROWS_MIN_WIDTH:
            return few_outputs_conv2d
        if channels >= SQUARES_MIN_CHANNELS and height * width <= SQUARES_MAX_AREA and height % OUTPUTS == 0:
            return winograd_squares
        return winograd_rows if channels >= ROWS_MIN_CHANNELS and width >= ROWS_MIN_WIDTH else None


class ConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d, from maps of a single pixel by one matrix product: the same arguments, inputs and errors."""

    padding: tuple[int, int]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not self._is_product(input):
            return super().forward(input, output_size)
        padding = self.padding[0]
        side = self.kernel_size[0] - 2 * padding
        W = self.weight.permute(0, 2, 3, 1)[:, padding : padding + side, padding : padding + side]
        y = (input.flatten(1) @ W.flatten(1)).view(len(input), side, side, -1)  # every pixel of y meets one tap
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)

    def _is_product(self, x: Tensor) -> bool:
        return (
            takes_other_ways(x, self.in_channels)
            and x.shape[2:] == (1, 1)
            and is_square(self)
            and self.output_padding == (0, 0)
            and self.kernel_size[0] > 2 * self.padding[0]
        )
