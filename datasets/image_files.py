"""Samples in files that may come from anyone, folders of pictures and .npz files: never resized, nor cut."""

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

MAX_NPZ = 2**34  # bytes of an .npz, unpacked
SHEET = "grid.png"  # what generate.py writes beside single samples: all of them
NPZ_KEYS = ("samples", "arr_0")  # this project's name, and the one that numpy and other projects give


def read_images(root: Path, image_size: int, channels: int) -> Tensor:
    """The images below a folder in the order of their names, which have to be of this size: (N, channels, S, S) uint8.

    UserError names files that cannot be read or have another size. SHEET is passed over, which is said.
    """
    names = [name for name, _, _ in scan(root).files]
    refuse_if(not names, f"no images below {root.resolve()}; it takes {', '.join(sorted(SUFFIXES))}")
    if SHEET in names and len(names) > 1:
        names.remove(SHEET)
        say_once(f"{root / SHEET} is passed over: generate.py writes all images of a folder into that one")
    pixels = io.BytesIO()
    found = decode_all(root, names, How(image_size, channels, crop=EXACT), pixels)
    refuse_if(found.bad, cannot_read(found.bad, root, len(names)))
    return torch.frombuffer(pixels.getbuffer(), dtype=torch.uint8).view(-1, channels, image_size, image_size)


def load_samples(path: str | Path, image_size: int, channels: int) -> Tensor:
    """Samples of any generator, from a folder of images or an .npz: (N, channels, image_size, image_size) uint8.

    The .npz holds N x H x W x C or N x H x W under `samples` or `arr_0`. UserError for what is no such thing.
    """
    path = Path(path)
    if path.is_dir():
        return read_images(path, image_size, channels)
    refuse_if(not path.is_file(), f"--samples {path}: there is no such folder or file")
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
    if array.dtype != np.uint8:
        raise UserError(
            f"--samples {path} holds {array.dtype}; scores are taken on uint8 images. Quantise them as they would be "
            "saved: round((x + 1) * 127.5) for x in [-1, 1]"
        )
    if array.ndim != 4 or array.shape[3] != channels or not len(array):
        raise UserError(f"--samples {path}: N x H x W x {channels} is needed, as the real images, not {array.shape}")
    height, width = array.shape[1:3]
    refuse_if((width, height) != (image_size, image_size), f"{path}: {wrong_size(width, height, image_size)}")
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
