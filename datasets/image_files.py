"""Read and write samples, as folders of pictures or .npz files. They are never resized or cropped."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.console import announced
from utils.distributed import say_once
from utils.errors import UserError, memory_ran_out, refuse_if
from utils.files import check_target, write_atomically

from .decode import EXACT, How, wrong_size
from .pictures import cannot_read
from .scan import SUFFIXES, scan
from .workers import decode_all

MAX_NPZ = 2**34  # bytes of an unpacked .npz, at most
SHEET = "grid.png"  # the file in which generate.py shows all samples together
NPZ_KEYS = ("samples", "arr_0")  # as named by this project, and by numpy and other projects


def read_images(root: Path, image_size: int, channels: int) -> Tensor:
    """Read the images below a folder, sorted by name: (N, channels, image_size, image_size) uint8.

    Skips SHEET with a message. Raises UserError if there are no images, or if one is unreadable or of another size.
    """
    names = [name for name, _, _ in scan(root).files]
    refuse_if(not names, f"no images below {root.resolve()}; accepted: {', '.join(sorted(SUFFIXES))}")
    if SHEET in names and len(names) > 1:
        names.remove(SHEET)
        say_once(f"{root / SHEET} is skipped: generate.py writes it as an overview of the folder's images")
    pixels = io.BytesIO()
    found = decode_all(root, names, How(image_size, channels, crop=EXACT), pixels)
    refuse_if(found.bad, cannot_read(found.bad, root, len(names)))
    return torch.frombuffer(pixels.getbuffer(), dtype=torch.uint8).view(-1, channels, image_size, image_size)


def load_samples(path: str | Path, image_size: int, channels: int) -> Tensor:
    """Read samples from a folder of images or an .npz: (N, channels, image_size, image_size) uint8.

    The .npz holds N x H x W (x C) under `samples` or `arr_0`. Raises UserError if there are no such samples.
    """
    path = Path(path)
    if path.is_dir():
        return read_images(path, image_size, channels)
    refuse_if(not path.is_file(), f"--samples {path}: no such folder or file")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_NPZ:
                raise ValueError("it unpacks to more than 16 GiB")
        with announced(f"reading {path}"), np.load(path, allow_pickle=False) as content:
            names = [name for name in NPZ_KEYS if name in content]
            array = content[names[0]] if names else None
    except Exception as error:  # numpy and zipfile raise a dozen kinds of error for a damaged or foreign file
        if memory_ran_out(error):
            raise
        raise UserError(f"--samples {path} is neither a folder nor an .npz of numbers: {error}") from error
    if array is None:
        raise UserError(f"--samples {path} has no array named {' or '.join(NPZ_KEYS)}")
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.dtype != np.uint8:
        raise UserError(
            f"--samples {path} holds {array.dtype}, but scores need uint8 images. Convert x in [-1, 1] by "
            "round((x + 1) * 127.5)"
        )
    if array.ndim != 4 or array.shape[3] != channels or not len(array):
        raise UserError(f"--samples {path} must be N x H x W x {channels} like the real images, not {array.shape}")
    height, width = array.shape[1:3]
    refuse_if((width, height) != (image_size, image_size), f"{path}: {wrong_size(width, height, image_size)}")
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def save_samples(path: str | Path, images: Tensor, labels: Tensor | None = None) -> None:
    """Save images (N, C, H, W) uint8, and labels (N,) if given, as an .npz for load_samples()."""
    buffer = io.BytesIO()
    with announced(f"writing {len(images):,} images into {path}"):
        arrays: dict[str, Any] = {} if labels is None else {"labels": labels.numpy()}
        np.savez_compressed(buffer, samples=images.permute(0, 2, 3, 1).numpy(), **arrays)
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def check_npz(flag: str, path: str | None) -> None:
    """Check the path that --flag names. Raises UserError if save_samples() cannot write an .npz there."""
    refuse_if(path and not path.endswith(".npz"), f"--{flag} {path}: the name must end in .npz")
    check_target(path)
