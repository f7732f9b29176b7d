"""Decode one picture file from any source to the pixels of a run, or refuse it."""

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

FORMATS = ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"]  # Pillow reads others, some by starting programs
with warnings.catch_warnings(action="ignore"):  # older versions do not know "avif"
    FORMATS += ["AVIF"] * bool(features.check("avif"))
MAX_PIXELS = 2**26  # decoded, before resizing: a file of a few bytes can claim any number
Image.MAX_IMAGE_PIXELS = None  # no limit by Pillow: phones' largest JPEGs exceed it before they are drafted
MAX_FILE = 2**29  # bytes of a picture unpacked from an archive, at most
EXACT = "exact"  # a value of crop: refuse pictures of another size instead of resizing them
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other methods may need any amount of memory


class How(NamedTuple):
    """How to decode a picture: every setting that changes a pixel."""

    image_size: int
    channels: int
    background: tuple[int, int, int] = (255, 255, 255)  # under transparent parts
    crop: str = "center"  # "center"; "none": resize without keeping the aspect ratio; or EXACT


class Facts(NamedTuple):
    """Facts about a picture as it was in its file."""

    size: tuple[int, int]  # width and height
    transparent: bool = False


class RefusedPicture(ValueError):
    """A picture that can be read but not used."""


def picture(file: IO[bytes], how: How) -> tuple[Any, Facts]:
    """Decode a picture to upright pixels, (side, side) or (side, side, 3) uint8, and its Facts.

    Raises RefusedPicture if the picture cannot be used, or any error of Pillow's decoders if it cannot be read.
    """
    side = how.image_size
    image: Image.Image
    with Image.open(file, formats=FORMATS) as image:
        size = image.size
        if how.crop == EXACT and size != (side, side):
            raise RefusedPicture(wrong_size(*size, side))
        if how.crop != EXACT and image.format == "JPEG":
            image.draft(image.mode, (2 * side, 2 * side))  # to at least twice the final size
        # A progressive JPEG is in memory at its full size while it is decoded.
        if math.prod(size if "progressive" in image.info else image.size) > MAX_PIXELS:
            way = "make it smaller, or save it as a JPEG that is not progressive"
            raise RefusedPicture(f"{size[0]}x{size[1]} pixels are too many (limit: {MAX_PIXELS:,}); {way}")
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
    """The reason for refusing a sample whose size differs from that of the real images."""
    return (
        f"it is {width}x{height}, but the real images are scored at {side}x{side}. Samples are never resized, nor cut "
        "from a grid; did you mean another --image_size?"
    )


def _eight_bits(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """Convert to 8 bits a channel on an opaque background. Returns the picture, and whether it was transparent."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        upper = np.clip(np.asarray(image), 0, 2**16 - 1) >> 8  # Pillow itself would clip at 255
        return Image.fromarray(upper.astype(np.uint8)), False
    if image.mode in ("I", "F"):
        raise RefusedPicture("it has 32-bit or floating-point pixels: save it with 8 or 16 bits per channel")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        lowest: Any = whole.getchannel("A").getextrema()[0]
        if lowest < 255:
            return Image.alpha_composite(Image.new("RGBA", whole.size, (*background, 255)), whole), True
    return image, False


def reason_of(error: Exception) -> str:
    """The reason why a picture cannot be read, in one line without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = " ".join(str(error).split())
    return "it is not a picture" if "cannot identify image file" in said else said[:200] or type(error).__name__


def opener(root: str | os.PathLike[str]) -> Callable[[str], IO[bytes]]:
    """Return a function that opens a picture in a folder or .zip archive by name."""
    if os.path.isdir(root):
        return lambda name: open(os.path.join(root, name), "rb")
    archive = zipfile.ZipFile(root)

    def unpack(name: str) -> IO[bytes]:
        member = archive.getinfo(name)
        if member.compress_type not in UNPACKED:
            raise RefusedPicture("its compression is neither stored nor deflated")
        if member.file_size > MAX_FILE:
            raise RefusedPicture(f"it unpacks to {member.file_size / 2**20:,.0f} MiB")
        return io.BytesIO(archive.read(member))  # reads at most the declared size

    return unpack
