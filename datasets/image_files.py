"""Images from files that may come from anyone: folders of pictures, and .npz files of samples."""

import io
import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from utils.console import announced, progress
from utils.errors import UserError, memory_ran_out, refuse_if
from utils.files import check_target, write_atomically
from utils.launcher import own_rank

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # Pillow knows others, some of which start programs
MAX_PIXELS = 2**26  # in a picture, before it is resized; a few bytes can claim any number
MAX_NPZ = 2**34  # bytes of an .npz, unpacked
NPZ_KEYS = ("samples", "arr_0")  # this project's name, and the one that numpy and other projects give


def list_images(root: Path) -> tuple[list[Path], list[str | None]]:
    """The images below a folder, hidden ones left out, and each one's class folder, or None at the top."""
    if not root.is_dir():
        raise UserError(f"images are read from a folder, and {root.resolve()} is not a folder")
    paths = []
    seen = set()

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}")

    for directory, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        seen.add(os.path.realpath(directory))  # links may lead in a circle
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(directory, name)) not in seen
        ]
        visible = (Path(directory, name) for name in names if not name.startswith("."))
        paths += [path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file()]  # no pipe or device
    if not paths:
        raise UserError(f"no images below {root.resolve()}; it takes {', '.join(sorted(SUFFIXES))}")
    paths.sort()
    return paths, [path.relative_to(root).parts[0] if path.parent != root else None for path in paths]


def read_images(paths: Sequence[str | Path], image_size: int, channels: int, resize: bool = True) -> Tensor:
    """Images of these files: (N, channels, image_size, image_size) uint8. UserError names a file that cannot be read.

    resize: cut to a square in the centre and resized; otherwise an image of another size is a UserError.
    """
    from PIL import Image, ImageOps

    images = torch.empty(len(paths), channels, image_size, image_size, dtype=torch.uint8)
    image: Image.Image
    for path, out in progress(zip(paths, images), "reading images", len(paths), unit="image", disable=own_rank() > 0):
        try:
            with Image.open(path, formats=FORMATS) as image:
                if not resize:
                    check_size(path, image.size, image_size)
                if math.prod(image.size) > MAX_PIXELS:
                    raise ValueError(f"{image.size[0]}x{image.size[1]} pixels are too many")
                if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
                image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)  # centre crop
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
            if memory_ran_out(error):
                raise
            reason = str(error) or type(error).__name__
            raise UserError(f"cannot read the image {path}: {reason}. Remove or replace it") from error
        out.copy_(torch.from_numpy(np.array(image)).view(image_size, image_size, channels).permute(2, 0, 1))
    return images


def check_size(path: str | Path, size: Sequence[int], image_size: int) -> None:
    """Raise UserError where samples are not of the size at which the real images are scored."""
    if tuple(size) != (image_size, image_size):
        raise UserError(
            f"{path} is {size[0]}x{size[1]}, and the real images are scored at {image_size}x{image_size}: samples are "
            "never resized, nor cut from a picture of many. Save each at its own size, or give another --image_size"
        )


def load_samples(path: str | Path, image_size: int, channels: int) -> Tensor:
    """Samples of any generator, from a folder of images or an .npz: (N, channels, image_size, image_size) uint8.

    The .npz holds N x H x W x C or N x H x W under `samples` or `arr_0`. UserError for what is no such thing.
    """
    path = Path(path)
    if path.is_dir():
        return read_images(list_images(path)[0], image_size, channels, resize=False)
    if not path.is_file():
        raise UserError(f"--samples {path}: there is no such folder or file")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_NPZ:
                raise ValueError("it unpacks to more than 16 GiB")
        with announced(f"reading {path}"), np.load(path, allow_pickle=False) as content:
            names = [name for name in NPZ_KEYS if name in content]
            array = content[names[0]] if names else None
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a file that is damaged or something else
        if memory_ran_out(error):
            raise
        raise UserError(f"--samples {path} is neither a folder nor an .npz of numbers: {error}") from error
    if array is None:
        raise UserError(f"--samples {path} has no array named {' or '.join(NPZ_KEYS)}")
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or not len(array):
        raise UserError(f"--samples {path}: an array of N x H x W x C is needed, C 1 or 3, not {array.shape}")
    if array.dtype != np.uint8:
        raise UserError(
            f"--samples {path} holds {array.dtype}; scores are taken on uint8 images. Quantise them as they would be "
            "saved: round((x + 1) * 127.5) for x in [-1, 1]"
        )
    check_size(path, array.shape[2:0:-1], image_size)
    if array.shape[3] != channels:
        raise UserError(f"--samples {path} has {array.shape[3]} channels, and the real images have {channels}")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def save_samples(path: str | Path, images: Tensor, labels: Tensor | None = None) -> None:
    """Save images (N, C, H, W) uint8, and their labels (N,), as an .npz that load_samples() reads."""
    buffer = io.BytesIO()
    with announced(f"writing {len(images):,} images into {path}"):
        arrays: dict[str, Any] = {} if labels is None else {"labels": labels.numpy()}
        np.savez_compressed(buffer, samples=images.permute(0, 2, 3, 1).numpy(), **arrays)
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def check_npz(flag: str, path: str | None) -> None:
    """Raise UserError where --flag names no .npz that save_samples() can write."""
    refuse_if(path and not path.endswith(".npz"), f"--{flag} {path}: the name must end in .npz")
    check_target(path)
