"""One picture file to the pixels of a run, and the process that does so beside others: it starts without torch.

Run as a script it takes a line of JSON for each part of the pictures and answers with one (see datasets/workers.py).
"""

import contextlib
import io
import json
import math
import os
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, features

FORMATS: tuple[str, ...] = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "GIF",
    "TIFF",
    "PPM",
)  # Pillow knows others, some of which start programs
with warnings.catch_warnings(action="ignore"):  # older versions do not know the word
    FORMATS += ("AVIF",) * bool(features.check("avif"))
MAX_PIXELS = 2**26  # in a picture, before it is resized; a few bytes can claim any number
MAX_FILE = 2**29  # bytes of a picture, unpacked from an archive
EXACT = "exact"  # in the place of a crop: pictures of another size are refused, and none is resized
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for any amount of memory
ORIENTATION = 0x0112  # EXIF's tag, and how a picture is turned upright for each of its values
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # of a PNG: what its pixels depend on


class How(NamedTuple):
    """What becomes of a picture: all that changes a pixel, beside the file."""

    image_size: int
    channels: int
    background: tuple[int, int, int] = (255, 255, 255)  # under what is transparent
    crop: str = "center"  # none: squeezed; or EXACT


class Facts(NamedTuple):
    """What a picture was."""

    size: tuple[int, int]
    transparent: bool = False
    own_range: bool = False  # scaled by its own smallest and largest value


def picture(file: IO[bytes], how: How) -> tuple[Any, Facts]:
    """The pixels of a picture, (side, side) or (side, side, 3) uint8, upright, in the size of a run; and what it was.

    Raises whatever Pillow's decoders do for a file that is damaged or no picture, and RefusedPicture.
    """
    try:
        return _picture(file, how)
    except (MemoryError, RefusedPicture):
        raise
    except Exception as error:
        plain = without_metadata(file)
        if plain is None:
            raise
        with contextlib.suppress(Exception):  # it is not the metadata that are broken
            return _picture(io.BytesIO(plain), how)
        raise error


class RefusedPicture(ValueError):
    """A picture that could be read, and is not what can be trained on."""


def _picture(file: IO[bytes], how: How) -> tuple[Any, Facts]:
    side = how.image_size
    image: Image.Image
    with Image.open(file, formats=FORMATS) as image:
        size = image.size
        if how.crop == EXACT and size != (side, side):
            raise RefusedPicture(
                f"it is {size[0]}x{size[1]}, and the real images are scored at {side}x{side}: samples are never "
                "resized, nor cut from a grid. Maybe another --image_size is meant"
            )
        if math.prod(size) > MAX_PIXELS:
            raise RefusedPicture(f"{size[0]}x{size[1]} pixels are too many")
        if how.crop != EXACT and image.format == "JPEG":
            image.draft(image.mode, (2 * side, 2 * side))  # at least twice the size that it is brought to
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        image, transparent, own_range = _eight_bits(image, how.background)
        image = image.convert("L" if how.channels == 1 else "RGB")
        if turn is not None:
            image = image.transpose(turn)
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BILINEAR, box=_box(image.size, how.crop))
        return np.asarray(image), Facts(size, transparent, own_range)


def _box(size: tuple[int, int], crop: str) -> tuple[float, float, float, float]:
    """The part of a picture that is kept: its square centre, or all of it."""
    width, height = size
    if crop == "none":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) * 0.5, (height - side) * 0.5
    return left, top, left + side, top + side


def _orientation(image: Image.Image) -> Any:
    """EXIF's orientation; None where there is none, or where what holds it is broken."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ORIENTATION)
    return None


def _eight_bits(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool, bool]:
    """A picture of 8 bits a channel without transparency; whether it had such, and whether its range was its own's."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if deep:  # 16 bits, which Pillow would clip
        values = np.asarray(image)
        reduced = Image.fromarray((np.clip(values, 0, 2**16 - 1) >> 8).astype(np.uint8))
        key = image.info.get("transparency")
        if type(key) is int and (values == key).any():
            reduced.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
            return _on(reduced, background), True, False
        return reduced, False, False
    if image.mode in ("I", "F"):
        values = np.array(image, np.float64)
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            raise RefusedPicture("not all of its values are finite")
        if low == high:
            raise RefusedPicture(f"all of its values are {low:g}: there is no range to scale them by")
        values -= low
        values *= 255 / (high - low)
        return Image.fromarray(np.rint(values, out=values).astype(np.uint8)), False, True
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        lowest: Any = whole.getchannel("A").getextrema()[0]
        return (_on(whole, background), True, False) if lowest < 255 else (image, False, False)
    return image, False, False


def _on(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """A picture with transparency, laid on a colour."""
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, (*background, 255)), whole).convert("RGB")


# ---- Broken metadata ------------------------------------------------------------------------------------------------


def without_metadata(file: IO[bytes]) -> bytes | None:
    """The bytes of a JPEG or PNG without what its pixels do not depend on; None for anything else."""
    file.seek(0)
    data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        return None
    if data.startswith(PNG):
        return PNG + b"".join(part for kind, part in _png_chunks(data) if kind in PIXEL_CHUNKS)
    if data.startswith(JPEG):
        return JPEG + b"".join(_jpeg_segments(data))
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at:end]
        at = end


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """All but the comments and those of applications; JFIF's and Adobe's say what the colours mean, and stay."""
    at = len(JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # the pixels
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield data[at:end]
        at = end
    yield data[at:]


# ---- Where a picture's bytes come from ------------------------------------------------------------------------------


def opener(root: str) -> Callable[[str], IO[bytes]]:
    """What opens a picture by its name below a folder or in a .zip archive."""
    if os.path.isdir(root):
        return lambda name: open(os.path.join(root, name), "rb")
    archive = zipfile.ZipFile(root)

    def unpack(name: str) -> IO[bytes]:
        member = archive.getinfo(name)
        if member.flag_bits & 1:
            raise RefusedPicture("it is encrypted")
        if member.compress_type not in UNPACKED:
            raise RefusedPicture("it is neither stored nor deflated")
        if member.file_size > MAX_FILE:
            raise RefusedPicture(f"it unpacks to {member.file_size / 2**20:,.0f} MiB")
        return io.BytesIO(archive.read(member))  # never more than was declared

    return unpack


def decode(
    open_one: Callable[[str], IO[bytes]], names: Sequence[str], how: How, fatal: Callable[[BaseException], bool]
) -> tuple[bytes, dict[str, Any]]:
    """The pixels of those pictures that can be read, (N, C, S, S) uint8 as bytes, and what was found.

    Found are bad: [[number, reason]], sizes: [[width, height]] of the good ones, and how many were transparent and
    own_range. fatal: whether an error is no picture's fault, and is raised.
    """
    shape = (how.channels, how.image_size, how.image_size)
    out, good = np.empty((len(names), *shape), np.uint8), 0
    found: dict[str, Any] = {"bad": [], "sizes": [], "transparent": 0, "own_range": 0}
    with warnings.catch_warnings(action="ignore"):
        for number, name in enumerate(names):
            try:
                with open_one(name) as file:
                    pixels, facts = picture(file, how)
            except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
                if fatal(error):
                    raise
                found["bad"].append([number, reason_of(error)])
                continue
            out[good] = pixels if how.channels == 1 else pixels.transpose(2, 0, 1)
            good += 1
            found["sizes"].append(facts.size)
            found["transparent"] += facts.transparent
            found["own_range"] += facts.own_range
    return out[:good].tobytes(), found


def reason_of(error: Exception) -> str:
    """Why a picture cannot be read, in one line without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own bound, far above MAX_PIXELS
        return "its pixels are too many"
    said = " ".join(str(error).split())
    return "it is no picture" if "cannot identify image file" in said else said[:200] or type(error).__name__


def main() -> None:
    """Answer each line {names, at} with what decode() found; pixels go to the byte `at` of the file argv[2]."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one answers it
    root, target, image_size, channels, background, crop = json.loads(sys.argv[1])
    how = How(image_size, channels, tuple(background), crop)
    # Answers have the real stdout to themselves, whatever a library prints.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    open_one = opener(root)
    with open(target, "r+b") as file:
        for line in sys.stdin:
            job = json.loads(line)
            try:
                pixels, found = decode(open_one, job["names"], how, lambda error: isinstance(error, MemoryError))
                file.seek(job["at"])
                file.write(pixels)
                file.flush()
            except MemoryError as error:
                found = {"memory": str(error) or "MemoryError"}
            except OSError as error:
                found = {"errno": error.errno, "strerror": error.strerror}
            answers.write(json.dumps(found) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
