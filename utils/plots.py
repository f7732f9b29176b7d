"""Pictures: grids of images, and matplotlib. Images are (N, C, H, W) uint8."""

import functools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, so that a person can see them
GAP = 2  # pixels between images
LARGEST_TEXT, SMALLEST_TEXT = 20, 8  # pixels, of a row's name


def factor_of(side: int) -> int:
    """By how much images of so many pixels are enlarged, where nothing else is said."""
    return max(1, -(-MIN_CELL // side))


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Each pixel of images (..., H, W) as a square of factor x factor."""
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(
    images: Tensor, columns: int | None = None, factor: int | None = None, names: Sequence[str] = ()
) -> Image.Image:
    """Lay images out in rows, enlarged by a whole factor (small ones by default). A PIL image; square by default.

    names: of the rows, each written in a cell of its own in front of its row.
    """
    columns = columns or math.isqrt(len(images) - 1) + 1
    images = enlarge(images, factor or factor_of(images.size(-1)))
    if names:
        cells = [named_cell(name, images.size(-1), images.size(1)) for name in names]
        parts = [part for pair in zip(cells, images.split(columns), strict=True) for part in pair]
        images, columns = torch.cat(parts), columns + 1
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    return picture(canvas)


def named_cell(name: str, side: int, channels: int) -> Tensor:
    """A white cell with a name in it, as large as fits: (1, channels, side, side) uint8."""
    canvas = Image.new("L", (side, side), 255)
    lines = "\n".join(filter(None, re.split(r"[ _]+", name))) or name
    for size in range(LARGEST_TEXT, SMALLEST_TEXT - 1, -1):
        box = ImageDraw.Draw(canvas).multiline_textbbox((0, 0), lines, _font(size), spacing=2)
        if max(box[2], box[3]) <= side - 2:
            break
    corner = (max(0, side - box[2]) / 2, max(0, side - box[3]) / 2)  # of a name that is too long, the beginning shows
    ImageDraw.Draw(canvas).multiline_text(corner, lines, 0, _font(size), spacing=2, align="center")
    return torch.from_numpy(np.array(canvas)).expand(1, channels, -1, -1)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this size: matplotlib's, since Pillow has brought its own only for a short time."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) uint8 as a PIL image, each of its pixels one."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if image.size(0) == 1 else array)


def save_gif(path: str | Path, frames: Sequence[Image.Image], durations: Sequence[int]) -> None:
    """Save frames as an animation without end, each shown for so many milliseconds."""
    first, *others = frames
    first.save(path, format="GIF", save_all=True, append_images=others, duration=list(durations), loop=0, disposal=1)


def read_grid(path: str | Path, columns: int = 10, named: bool = False) -> np.ndarray:
    """The images of a picture that grid() made with so many columns, as enlarged there: (n, H, W) or (n, H, W, 3).

    named: its rows have names in front.
    """
    array = np.asarray(Image.open(path))[GAP:, GAP:]
    side, *shades = array.shape[1] // (columns + named), *array.shape[2:]
    cells = array.reshape(-1, side, columns + named, side, *shades).swapaxes(1, 2)[:, named:, :-GAP, :-GAP]
    return cells.reshape(-1, side - GAP, side - GAP, *shades)


def pyplot() -> ModuleType:
    """matplotlib.pyplot, imported late and drawing into files alone."""
    os.environ["MPLBACKEND"] = "Agg"  # whatever is inherited: a notebook's backend does not exist elsewhere
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
