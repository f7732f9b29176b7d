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

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, to be seen by a person
GAP = 2  # pixels between images
LARGEST_TEXT, SMALLEST_TEXT = 20, 14  # pixels: the height of a row's name
LETTERS, LINES, MOST_CELLS = 12, 3, 3  # at most, of a row's name: letters of a line, lines, cells
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))  # for lines that would differ only in hue


def factor_of(side: int) -> int:
    """Return the factor by which images of this side are enlarged by default."""
    return max(1, -(-MIN_CELL // side))


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Enlarge each pixel of images (..., H, W) to a square of factor x factor."""
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(
    images: Tensor, columns: int | None = None, factor: int | None = None, names: Sequence[str] = ()
) -> Image.Image:
    """Lay images out in rows, enlarged by a whole factor, and return a PIL image.

    By default the grid is square and factor_of() enlarges small images. names: texts in front of the rows, which take
    as many cells as the longest needs.
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
    for i, image in enumerate(images):  # over the end of a name that is too long
        canvas.paste(picture(image), (GAP + (cells + i % columns) * cell, GAP + i // columns * (height + GAP)))
    return canvas


def _fitting(texts: Sequence[str], cell: int) -> tuple[Any, int]:
    """Return (font, cells) for the rows' names: the largest font that fits, else the smallest."""
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    for size, cells in itertools.product(range(LARGEST_TEXT, SMALLEST_TEXT - 1, -1), range(1, MOST_CELLS + 1)):
        boxes = [draw.multiline_textbbox((0, 0), text, _font(size), spacing=2) for text in texts]
        if all(box[2] <= cells * cell - 2 * GAP and box[3] <= cell - 2 * GAP for box in boxes):
            break
    return _font(size), cells


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's font in this size: older versions of Pillow have none of their own."""
    return ImageFont.truetype(str(Path(matplotlib().get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def picture(image: Tensor) -> Image.Image:
    """Convert an image (C, H, W) uint8 to a PIL image of the same size."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if image.size(0) == 1 else array)


def save_gif(path: str | Path, frames: Sequence[Image.Image], durations: Sequence[int]) -> None:
    """Save frames as an endless animation. durations: milliseconds, one for each frame."""
    first, *others = frames
    first.save(path, format="GIF", save_all=True, append_images=others, duration=list(durations), loop=0, disposal=1)


def read_grid(path: str | Path, columns: int = 10, named: bool = False) -> np.ndarray:
    """Return the images, still enlarged, of a picture made by grid(): (n, H, W) or (n, H, W, 3).

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
    """Import matplotlib late, with its default settings instead of inherited ones, and return it.

    Every import of it goes through here. If the user's program has already imported it, that program's settings stay.
    """
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's backend does not exist elsewhere
    if module := sys.modules.get("matplotlib"):
        return module
    try:
        module = importlib.import_module("matplotlib")
    except (OSError, ValueError):  # an unreadable matplotlibrc: an empty one in the working folder precedes it
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("matplotlibrc").touch()
            for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
                del sys.modules[name]  # half-loaded modules
            module = importlib.import_module("matplotlib")
    module.rcdefaults()
    return module


def pyplot() -> ModuleType:
    """Return matplotlib.pyplot, which draws into files only."""
    matplotlib().use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def scaled(axis: Any, scale: str) -> None:
    """Set the scale of a panel's y axis. log needs a value above 0, symlog one beyond 10; otherwise it is linear."""
    shows = {"log": math.isfinite(axis.dataLim.minposy), "symlog": abs(axis.dataLim.intervaly).max() > 10}
    if shows.get(scale):
        axis.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        plain_ticks(axis.yaxis)


def plain_ticks(axis: Any) -> None:
    """Put few plain numbers on a logarithmic axis that is drawn: 380 and 400; 2, 5 and 10; 30 and 100."""
    ticker = pyplot()
    low, high = sorted(axis.get_view_interval())
    if low <= 0 or high / low > 1e4:
        return  # powers of ten are there
    even, uneven = ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]), (1, 2, 5) if high / low < 20 else (1, 3)
    axis.set_major_locator(even if high / low < 5 else ticker.LogLocator(subs=uneven))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(ticker.NullFormatter())
