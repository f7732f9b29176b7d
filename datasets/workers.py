"""Decode pictures on all cores: a DataLoader's processes decode parts, which come back in order."""

import dataclasses
import functools
import math
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.console import progress
from utils.distributed import rank
from utils.errors import UserError, memory_ran_out
from utils.threads import cores

from .decode import Facts, How, opener, picture, reason_of

PART = 64  # pictures in a part: limits a process's memory, and how long the bar waits for an update
ALONE = 4 * PART  # this many pictures are decoded before new processes would have started
START = "fork" if sys.platform == "linux" else None  # a fork has torch already; other processes would import it again


@dataclasses.dataclass
class Decoded:
    """The facts about decoded pictures."""

    seen: Counter[Facts] = dataclasses.field(default_factory=Counter)  # of the pictures that could be read
    bad: dict[str, str] = dataclasses.field(default_factory=dict)  # names of the others -> reason, in order

    @property
    def count(self) -> int:
        """The number of pictures that could be read."""
        return self.seen.total()


class Parts(Dataset[tuple[bytes, Decoded]]):
    """A data set of decoded pictures, PART in each item. root: a folder or .zip archive."""

    def __init__(self, root: Path, names: list[str], how: How) -> None:
        self.root, self.names, self.how = root, names, how

    @functools.cached_property
    def open_one(self) -> Callable[[str], IO[bytes]]:
        """Opens a picture by its name. Each process has its own, because an open archive has one file position."""
        return opener(self.root)

    def __len__(self) -> int:
        return math.ceil(len(self.names) / PART)

    def __getitem__(self, number: int) -> tuple[bytes, Decoded]:
        return decode(self.open_one, self.names[number * PART : (number + 1) * PART], self.how)


def decode(open_one: Callable[[str], IO[bytes]], names: list[str], how: How) -> tuple[bytes, Decoded]:
    """Return the N readable pictures as bytes, (N, C, S, S) uint8, and Decoded facts.

    Raises MemoryError if memory runs out.
    """
    pixels = np.empty((len(names), how.channels, how.image_size, how.image_size), np.uint8)
    found = Decoded()
    with warnings.catch_warnings(action="ignore"):
        for name in names:
            try:
                with open_one(name) as file:
                    one, facts = picture(file, how)
            except Exception as error:  # Pillow's decoders can raise anything for a damaged file
                if memory_ran_out(error):
                    raise MemoryError(str(error)) from error  # of a kind that can be sent between processes
                found.bad[name] = reason_of(error)
                continue
            pixels[found.count] = one if how.channels == 1 else one.transpose(2, 0, 1)
            found.seen[facts] += 1
    return pixels[: found.count].tobytes(), found


def _end_with_parent(worker: int) -> None:
    """In a worker: exit when the parent ends, even by kill -9. Results that nobody reads would otherwise block it."""
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def decode_all(root: Path, names: list[str], how: How, out: IO[bytes], num_workers: int | None = None) -> Decoded:
    """Decode the named pictures below root, a folder or .zip archive. Write their pixels to out.

    The pixels are (N, C, S, S) uint8, for the N that can be read, in order. num_workers: processes (default: one per
    core); 0: only this one. Raises UserError if one of them dies.
    """
    parts = Parts(root, names, how)
    if num_workers is None:
        num_workers = min(cores(), len(parts)) if cores() > 1 and len(names) > ALONE else 0
    loader = DataLoader(
        parts,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=START if num_workers else None,
        worker_init_fn=_end_with_parent,
        generator=torch.Generator(),  # so that the workers' seeds are not drawn from torch's global generator
    )
    found = Decoded()
    try:
        with progress(total=len(names), label="decoding images", unit="image", disable=rank() > 0) as bar:
            for pixels, part in loader:
                out.write(pixels)
                found.seen.update(part.seen)
                found.bad |= part.bad
                bar.update(part.count + len(part.bad))
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # otherwise it would keep the processes alive
        if not str(error).startswith("DataLoader worker"):
            raise
        at = root / names[min(found.count + len(found.bad), len(names) - 1)]
        raise UserError(
            f"a process that decoded images died at {at} or soon after it ({str(error).splitlines()[0].strip()}). If "
            "the system had run out of memory, try the same command again"
        ) from error
    return found
