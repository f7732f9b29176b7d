"""The terminal, or what is there instead: a pipe, a log file, nothing at all."""

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from .launcher import own_rank

LOG_FILE_INTERVAL = 30  # seconds between a progress bar's updates where nobody watches it move
tqdm.set_lock(threading.RLock())  # its own is a semaphore of several processes, which outlives one that is killed
PATIENCE = 5  # seconds before a bar, or what stands in its place, is shown at all


class Outlet:
    """Wraps stdout or stderr so that a closed pipe or terminal never stops a run; log.txt has what is not shown."""

    stream: Any

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115, None if a process starts without one
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not a text file, or closed
            self.stream.reconfigure(errors="backslashreplace")  # for what the terminal's encoding lacks

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # no reader, no terminal, a full disk, or closed: from now on, to nowhere
            with contextlib.suppress(OSError):
                self.stream.close()  # or Python would try again when it ends, and fail
            self.stream = open(os.devnull, "w")  # noqa: SIM115
        return len(text)

    def flush(self) -> None:
        """Every write is flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def command(*words: object) -> str:
    """Words of a command line so that they can be pasted into a shell."""
    return shlex.join(map(str, words))


def progress(
    iterable: Iterable[Any] | None = None, label: str | None = None, total: float | None = None, **options: Any
) -> tqdm:
    """A tqdm bar that moves on a terminal and leaves a line now and then in a log file."""
    interval = 0.1 if sys.stderr.isatty() else LOG_FILE_INTERVAL
    defaults = {"mininterval": interval, "delay": PATIENCE, "dynamic_ncols": True}
    return tqdm(iterable, label, total, **defaults | options)


@contextlib.contextmanager
def announced(what: str, every_rank: bool = False) -> Iterator[None]:
    """Within it, a line on stderr tells what is being done if that takes longer than PATIENCE seconds.

    what: such as "computing the FID". Only rank 0 prints it, unless every rank is to.
    """
    if own_rank() and not every_rank:
        yield
        return
    timer = threading.Timer(PATIENCE, lambda: tqdm.write(f"{what} ...", file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
