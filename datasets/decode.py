"""One picture file to the pixels of a run, whoever made it: what others misread, and what is refused."""

import contextlib
import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, features

FORMATS = ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"]  # Pillow knows others, some of which start programs
with warnings.catch_warnings(action="ignore"):  # older versions do not know the word
    FORMATS += ["AVIF"] * bool(features.check("avif"))
MAX_PIXELS = 2**26  # that a picture is decoded to, before it is resized; a few bytes can claim any number
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which phones' largest JPEGs pass before they are drafted
MAX_FILE = 2**29  # bytes of a picture, unpacked from an archive
EXACT = "exact"  # in the place of a crop: pictures of another size are refused, and none is resized
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for any amount of memory


class How(NamedTuple):
    """What becomes of a picture: all that changes a pixel, beside the file."""

    image_size: int
    channels: int
    background: tuple[int, int, int] = (255, 255, 255)  # under what is transparent
    crop: str = "center"  # none: squeezed; or EXACT


class Facts(NamedTuple):
    """What a picture was."""

    size: tuple[int, int]  # width and height
    transparent: bool = False


class RefusedPicture(ValueError):
    """A picture that could be read, and is not what can be trained on."""


def picture(file: IO[bytes], how: How) -> tuple[Any, Facts]:
    """The pixels of a picture, (side, side) or (side, side, 3) uint8, upright, in the size of a run; and what it was.

    Raises whatever Pillow's decoders do for a file that is damaged or no picture, and RefusedPicture.
    """
    side = how.image_size
    image: Image.Image
    with Image.open(file, formats=FORMATS) as image:
        size = image.size
        if how.crop == EXACT and size != (side, side):
            raise RefusedPicture(wrong_size(*size, side))
        if how.crop != EXACT and image.format == "JPEG":
            image.draft(image.mode, (2 * side, 2 * side))  # at least twice the size that it is brought to
        # A progressive JPEG is kept in memory as a whole while it is decoded.
        if math.prod(size if "progressive" in image.info else image.size) > MAX_PIXELS:
            way = "make it smaller, or save it as a JPEG that is not progressive"
            raise RefusedPicture(f"{size[0]}x{size[1]} pixels are too many, more than {MAX_PIXELS:,}: {way}")
        image.load()
        with contextlib.suppress(Exception):  # broken EXIF is no reason to refuse a picture
            ImageOps.exif_transpose(image, in_place=True)
        image, transparent = _eight_bits(image, how.background)
        image = image.convert("L" if how.channels == 1 else "RGB")
        if image.size != (side, side):
            bring = Image.Image.resize if how.crop == "none" else ImageOps.fit  # which keeps the square centre
            image = bring(image, (side, side), Image.Resampling.BILINEAR)
        return np.asarray(image), Facts(size, transparent)


def wrong_size(width: int, height: int, side: int) -> str:
    """Why samples of another size than the real images are refused."""
    return (
        f"it is {width}x{height}, and the real images are scored at {side}x{side}: samples are never resized, nor cut "
        "from a grid. Maybe another --image_size is meant"
    )


def _eight_bits(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """A picture of 8 bits a channel, what is transparent laid on a colour; and whether anything was."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        upper = np.clip(np.asarray(image), 0, 2**16 - 1) >> 8  # Pillow itself would clip at 255
        return Image.fromarray(upper.astype(np.uint8)), False
    if image.mode in ("I", "F"):
        raise RefusedPicture("it holds 32-bit or floating-point numbers: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        lowest: Any = whole.getchannel("A").getextrema()[0]
        if lowest < 255:
            return Image.alpha_composite(Image.new("RGBA", whole.size, (*background, 255)), whole), True
    return image, False


def reason_of(error: Exception) -> str:
    """Why a picture cannot be read, in one line without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = " ".join(str(error).split())
    return "it is no picture" if "cannot identify image file" in said else said[:200] or type(error).__name__


def opener(root: str | os.PathLike[str]) -> Callable[[str], IO[bytes]]:
    """What opens a picture by its name below a folder or in a .zip archive."""
    if os.path.isdir(root):
        return lambda name: open(os.path.join(root, name), "rb")
    archive = zipfile.ZipFile(root)

    def unpack(name: str) -> IO[bytes]:
        member = archive.getinfo(name)
        if member.compress_type not in UNPACKED:
            raise RefusedPicture("it is neither stored nor deflated")
        if member.file_size > MAX_FILE:
            raise RefusedPicture(f"it unpacks to {member.file_size / 2**20:,.0f} MiB")
        return io.BytesIO(archive.read(member))  # never more than was declared

    return unpack
