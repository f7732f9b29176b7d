"""Pictures: grids of images, and matplotlib. Images are (N, C, H, W) uint8."""

import contextlib
import functools
import importlib
import itertools
import math
import os
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, so that a person can see them
GAP = 2  # pixels between images
LARGEST_TEXT, SMALLEST_TEXT = 20, 14  # pixels, of a row's name
LETTERS, LINES, MOST_CELLS = 12, 3, 3  # of a row's name, at most: in a line, and the lines and cells it is given
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))  # of lines that hues alone would tell apart


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

    names: of the rows, each written in front of its row, in as many cells as the longest of them needs.
    """
    columns = columns or math.isqrt(len(images) - 1) + 1
    images = enlarge(images, factor or factor_of(images.size(-1)))
    count, channels, height, width = images.shape
    rows, cell = -(-count // columns), width + GAP
    texts = ["\n".join(textwrap.wrap(name.replace("_", " "), LETTERS)[:LINES]) or name for name in names]
    font, cells = _fitting(texts, cell) if names else (None, 0)
    size = ((cells + columns) * cell + GAP, rows * (height + GAP) + GAP)
    canvas = Image.new("L" if channels == 1 else "RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for row, text in enumerate(texts):
        middle = (GAP + cells * cell / 2, GAP + row * (height + GAP) + height / 2)
        draw.multiline_text(middle, text, "black", font, "mm", spacing=2, align="center")
    for i, image in enumerate(images):  # over what is too long of a name
        canvas.paste(picture(image), (GAP + (cells + i % columns) * cell, GAP + i // columns * (height + GAP)))
    return canvas


def _fitting(texts: Sequence[str], cell: int) -> tuple[Any, int]:
    """The largest font in which all texts fit into one cell or a few in front of a row, and how many; or the least."""
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    for size, cells in itertools.product(range(LARGEST_TEXT, SMALLEST_TEXT - 1, -1), range(1, MOST_CELLS + 1)):
        boxes = [draw.multiline_textbbox((0, 0), text, _font(size), spacing=2) for text in texts]
        if all(box[2] <= cells * cell - 2 * GAP and box[3] <= cell - 2 * GAP for box in boxes):
            break
    return _font(size), cells


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this size: matplotlib's, since Pillow has brought its own only for a short time."""
    return ImageFont.truetype(str(Path(matplotlib().get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


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
    (height, width), shades = array.shape[:2], array.shape[2:]
    fronts = range(1, MOST_CELLS + 1) if named else [0]  # cells of a name; only one number of them leaves squares
    front = next(n for n in fronts if width % (columns + n) == 0 and height % (width // (columns + n)) == 0)
    side = width // (columns + front)
    cells = array.reshape(-1, side, columns + front, side, *shades).swapaxes(1, 2)[:, front:, :-GAP, :-GAP]
    return cells.reshape(-1, side - GAP, side - GAP, *shades)


def matplotlib() -> ModuleType:
    """matplotlib, imported late. Its backend and its defaults are its own, whatever is inherited or a file says.

    Every import of it goes through here. Where a user's program has imported it, it keeps that program's settings.
    """
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's backend does not exist elsewhere
    if module := sys.modules.get("matplotlib"):
        return module
    try:
        module = importlib.import_module("matplotlib")
    except (OSError, ValueError):  # a matplotlibrc that cannot be read: an empty one in this folder goes before it
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("matplotlibrc").touch()
            for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
                del sys.modules[name]  # what is half loaded
            module = importlib.import_module("matplotlib")
    module.rcdefaults()
    return module


def pyplot() -> ModuleType:
    """matplotlib.pyplot, drawing into files only."""
    matplotlib().use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def scaled(axis: Any, scale: str) -> None:
    """Give a panel's y axis a scale, with plain numbers: linear, log if anything is above 0, or symlog if above 10."""
    shows = {"log": math.isfinite(axis.dataLim.minposy), "symlog": abs(axis.dataLim.intervaly).max() > 10}
    if shows.get(scale):
        axis.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        plain_ticks(axis.yaxis)


def plain_ticks(axis: Any) -> None:
    """Few and plain numbers on a logarithmic axis of what was drawn: 380 and 400; 2, 5 and 10; 30 and 100."""
    ticker = pyplot()
    low, high = sorted(axis.get_view_interval())
    if low <= 0 or high / low > 1e4:
        return  # powers of ten are there
    even, uneven = ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]), (1, 2, 5) if high / low < 20 else (1, 3)
    axis.set_major_locator(even if high / low < 5 else ticker.LogLocator(subs=uneven))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(ticker.NullFormatter())
