"""The cache of decoded images: a mapped file of pixels (N, C, S, S) uint8, followed by labels (N,) int64.

A JSON file next to it holds its key and facts about the pictures. Both are written under temporary names and renamed,
the JSON last, so that an incomplete file is never used.
"""

import contextlib
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from settings.config import Config
from utils.errors import UserError, memory_ran_out
from utils.files import file_sha256, write_text
from utils.locks import locked

from .images import Images, Origin
from .scan import is_archive

FORMAT = "sngan-images-1"
FOLDER = ".cache"  # hidden, so that it is not taken for a class in a folder of images
Say = Callable[[str], object]


class Made(NamedTuple):
    """The facts that a function of type Make returns about the pixels it wrote."""

    labels: Sequence[int]
    classes: tuple[str, ...]
    sizes: dict[str, Any]
    skipped: dict[str, str]
    notes: tuple[str, ...]


Make = Callable[[IO[bytes]], Made]


def cache_folder(config: Config) -> Path:
    """The cache folder of a data set: --cache_dir, or a hidden folder next to the data."""
    if config.cache_dir:
        return Path(config.cache_dir)
    data = Path(config.data_dir)
    return (data.parent if is_archive(data) else data) / FOLDER


def kept_or_made(config: Config, name: str, facts: dict[str, Any], make: Make, say: Say) -> Images:
    """Load images of config's size and channels from the cache, or make them now.

    facts: the key; if it has changed, the file with this name is replaced. make(file) writes the pixels. If several
    processes call this at once, one makes the file and the others wait.
    Raises UserError if the cache cannot be written.
    """
    folder, shape = cache_folder(config), (config.channels, config.image_size, config.image_size)
    key = {"format": FORMAT, "shape": list(shape), **facts}
    path = folder / f"{name}_{config.image_size}px_{config.channels}ch.images"
    found = _kept(path, key, shape)
    if found is None:
        waiting = f"another process is decoding images into {folder}; waiting for it"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / ".lock", lambda _: say(waiting)):
                found = _kept(path, key, shape) or _made(path, key, shape, make)
        except OSError as error:
            if memory_ran_out(error):
                raise
            raise UserError(
                f"decoded images cannot be kept in {folder.absolute()}: {error.strerror or error}. Name a folder with "
                "enough space with --cache_dir, or use a smaller --image_size"
            ) from error
    assert found is not None
    return found


def _kept(path: Path, key: dict[str, Any], shape: tuple[int, ...]) -> Images | None:
    """Load the images cached under this name and key. Returns None if they are absent or incomplete."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the files are absent or damaged
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if content["key"] != key or path.stat().st_size != content["count"] * (math.prod(shape) + 8):
            return None
        # Read-only and shared: the file's pages, which the system can drop and read again as it needs memory.
        pixels = np.memmap(path, np.uint8, "r", shape=(content["count"], *shape))
        labels = np.fromfile(path, "<i8", offset=pixels.nbytes)
        with warnings.catch_warnings(action="ignore"):  # nothing writes to images
            images = torch.from_numpy(pixels)
        origin = Origin(content["sha256"], content["sizes"], content["skipped"], tuple(content["notes"]))
        return Images(images, torch.from_numpy(labels.astype(np.int64)), tuple(content["classes"]), origin)
    return None


def _made(path: Path, key: dict[str, Any], shape: tuple[int, ...], make: Make) -> Images | None:
    for left in path.parent.glob("*.part"):  # left by a killed process, since this one holds the lock
        left.unlink(missing_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            made = make(file)
            file.write(np.asarray(made.labels, "<i8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        content = {"key": key, "count": len(made.labels), "sha256": file_sha256(part), **made._asdict()}
        del content["labels"]
        path.with_suffix(".json").unlink(missing_ok=True)  # of the file that is replaced
        os.replace(part, path)
        write_text(path.with_suffix(".json"), json.dumps(content))
    finally:
        part.unlink(missing_ok=True)
    return _kept(path, key, shape)
