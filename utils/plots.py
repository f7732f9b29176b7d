"""Pictures: grids of images, and matplotlib. Images are (N, C, H, W) uint8."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, so that a person can see them
GAP = 2  # pixels between images


def factor_of(side: int) -> int:
    """By how much images of so many pixels are enlarged, where nothing else is said."""
    return max(1, -(-MIN_CELL // side))


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Each pixel of images (..., H, W) as a square of factor x factor."""
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(images: Tensor, columns: int | None = None, factor: int | None = None) -> Image.Image:
    """Lay images out in rows, enlarged by a whole factor (small ones by default). A PIL image; square by default."""
    columns = columns or math.isqrt(len(images) - 1) + 1
    images = enlarge(images, factor or factor_of(images.size(-1)))
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    return picture(canvas)


def picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) uint8 as a PIL image, each of its pixels one."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if image.size(0) == 1 else array)


def save_gif(path: str | Path, frames: Sequence[Image.Image], durations: Sequence[int]) -> None:
    """Save frames as an animation without end, each shown for so many milliseconds."""
    indexed = [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    indexed[0].save(
        path, format="GIF", save_all=True, append_images=indexed[1:], duration=list(durations), loop=0, disposal=1
    )


def read_grid(path: str | Path, columns: int = 10) -> np.ndarray:
    """The images of a picture that grid() made with so many columns, as enlarged there: (n, H, W) or (n, H, W, 3)."""
    array = np.asarray(Image.open(path))
    side = (array.shape[1] - GAP) // columns
    starts = (
        (GAP + row, GAP + column)
        for row in range(0, len(array) - GAP, side)
        for column in range(0, columns * side, side)
    )
    return np.stack([array[top : top + side - GAP, left : left + side - GAP] for top, left in starts])


def pyplot() -> ModuleType:
    """matplotlib.pyplot, imported late and drawing into files alone."""
    os.environ["MPLBACKEND"] = "Agg"  # whatever is inherited: a notebook's backend does not exist elsewhere
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
