"""The logs of a run: log.txt and the terminal for people, stats.jsonl and TensorBoard for programs."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from utils.errors import UserError
from utils.files import write_text, writing_into

BROKEN = 1e6  # a loss beyond it, with either sign, counts as diverged


def read_stats(run_dir: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a run's stats.jsonl as dicts, even while it is being written.

    An incomplete last line is left out. Raises UserError if any other line is not an object with a step.
    """
    path = Path(run_dir) / "stats.jsonl"
    if not path.is_file():
        return []
    texts = path.read_bytes().split(b"\n")
    lines = []
    for number, text in enumerate(texts[:-1], 1):  # the text after the last newline is incomplete
        try:
            line = json.loads(text)
            if type(line["step"]) is not int:
                raise ValueError("its step is not a whole number")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not an object with a step; fix or delete that line") from error
        lines.append(line)
    return lines


class Quiet:
    """A logger that writes nothing, for ranks other than 0."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


class Logger:
    """Write the logs of a run. On a resume from `step`, statistics of later steps are deleted first.

    Raises UserError if the files cannot be opened.
    """

    def __init__(self, run_dir: str | Path, tensorboard: bool = False, step: int = 0) -> None:
        self.run_dir, self._tensorboard = Path(run_dir), tensorboard
        self._stats: Any = None
        self._writer: Any = None
        with writing_into(run_dir):
            self._text = open(self.run_dir / "log.txt", "a", 1, "utf-8", "backslashreplace")  # noqa: SIM115
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Delete the statistics of later steps, since these steps will be repeated."""
        if self._stats:
            self._stats.close()
        path = self.run_dir / "stats.jsonl"
        kept = [json.dumps(line) + "\n" for line in read_stats(self.run_dir) if line["step"] <= step]
        write_text(path, "".join(kept))
        self._stats = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        if self._tensorboard:
            if self._writer:
                self._writer.close()
            self._writer = summary_writer()(self.run_dir / "tensorboard", purge_step=step + 1)

    def note(self, text: str) -> None:
        """Write a line only to log.txt, for text that is printed elsewhere."""
        self._text.write(text + "\n")

    def say(self, text: str) -> None:
        """Print a line, above any progress bar, and write it to log.txt."""
        tqdm.write(text)
        self.note(text)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append {"step": step, **values}, numbers and text, to stats.jsonl; NaN and infinity become null."""
        values = {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in values.items()}
        self._stats.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer:
            for name, value in values.items():
                if isinstance(value, str):
                    self._writer.add_text(name, value, step)
                elif value is not None:
                    self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Show a picture in TensorBoard, if --tensorboard is set."""
        if self._writer:
            pixels = np.asarray(picture)
            self._writer.add_image(name, pixels, step, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def sync(self) -> None:
        """Flush statistics to disk before a checkpoint, so that a power cut loses none before it."""
        try:
            os.fsync(self._stats.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # raised for files that are not on a disk
                raise

    def close(self) -> None:
        for file in (self._stats, self._text, self._writer):
            with contextlib.suppress(OSError):  # a full disk has already been reported
                if file:
                    file.close()


def append(run_dir: str | Path, text: str) -> None:
    """Add a line to the log.txt of an ended run, if it can be written."""
    with contextlib.suppress(OSError), open(Path(run_dir) / "log.txt", "a", 1, "utf-8", "backslashreplace") as file:
        file.write(text + "\n")


def summary_writer() -> Any:
    """Return TensorBoard's SummaryWriter class. Raises UserError if the tensorboard package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs the tensorboard package: pip install tensorboard") from error
    return SummaryWriter
