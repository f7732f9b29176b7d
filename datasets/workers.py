"""Pictures decoded by all cores: dealt in parts to the processes of a DataLoader, and taken back in their order."""

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

PART = 64  # pictures in a part of the work: bounds the memory of a process, and what a bar waits for
ALONE = 4 * PART  # so few are decoded sooner than processes start
START = "fork" if sys.platform == "linux" else None  # a fork has torch already, which others import anew


@dataclasses.dataclass
class Decoded:
    """What was found of pictures."""

    seen: Counter[Facts] = dataclasses.field(default_factory=Counter)  # those that could be read
    bad: dict[str, str] = dataclasses.field(default_factory=dict)  # the others' names -> why not, in their order

    @property
    def count(self) -> int:
        """How many could be read."""
        return self.seen.total()


class Parts(Dataset[tuple[bytes, Decoded]]):
    """Pictures below root, a folder or .zip archive, PART at a time."""

    def __init__(self, root: Path, names: list[str], how: How) -> None:
        self.root, self.names, self.how = root, names, how

    @functools.cached_property
    def open_one(self) -> Callable[[str], IO[bytes]]:
        """Opens a picture by its name. Each process makes its own: an opened archive has one position."""
        return opener(self.root)

    def __len__(self) -> int:
        return math.ceil(len(self.names) / PART)

    def __getitem__(self, number: int) -> tuple[bytes, Decoded]:
        return decode(self.open_one, self.names[number * PART : (number + 1) * PART], self.how)


def decode(open_one: Callable[[str], IO[bytes]], names: list[str], how: How) -> tuple[bytes, Decoded]:
    """The pixels of those pictures that can be read, (N, C, S, S) uint8 as bytes, and what was found of all.

    MemoryError where memory runs out.
    """
    pixels = np.empty((len(names), how.channels, how.image_size, how.image_size), np.uint8)
    found = Decoded()
    with warnings.catch_warnings(action="ignore"):
        for name in names:
            try:
                with open_one(name) as file:
                    one, facts = picture(file, how)
            except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
                if memory_ran_out(error):
                    raise MemoryError(str(error)) from error  # of a kind that comes back from another process
                found.bad[name] = reason_of(error)
                continue
            pixels[found.count] = one if how.channels == 1 else one.transpose(2, 0, 1)
            found.seen[facts] += 1
    return pixels[: found.count].tobytes(), found


def _end_with_parent(worker: int) -> None:
    """In a worker: end when the process that started it does, even by kill -9. What nobody reads would hold it back."""
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def decode_all(root: Path, names: list[str], how: How, out: IO[bytes], num_workers: int | None = None) -> Decoded:
    """Decode the pictures of these names below root, a folder or .zip archive; write their pixels to out.

    Those are (N, C, S, S) uint8, of the N that could be read, in their order. num_workers: processes, by default as
    many as there are cores; 0: this one alone. UserError where one dies.
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
        generator=torch.Generator(),  # its workers' seeds would be drawn from torch's own stream
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
        traceback.clear_frames(error.__traceback__)  # or it would keep the processes
        if not str(error).startswith("DataLoader worker"):
            raise
        at = root / names[min(found.count + len(found.bad), len(names) - 1)]
        raise UserError(
            f"a process that decoded images ended at {at} or soon after it ({str(error).splitlines()[0].strip()}). If "
            "the system ended it, for its memory, the same command may succeed"
        ) from error
    return found
