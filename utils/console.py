"""Output to a terminal, a pipe, a log file or nowhere: safe streams, progress bars, announcements."""

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from .launcher import own_rank

LOG_FILE_INTERVAL = 30  # seconds between a progress bar's updates outside a terminal
PATIENCE = 5  # seconds before a progress bar or an announcement is shown
tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore, which outlives a killed process


class Outlet:
    """A wrapper of stdout or stderr, so that a closed pipe or terminal never stops a run. log.txt has what is lost."""

    stream: Any

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115, None if a process starts without one
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not a text file, or closed
            self.stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # no reader, no terminal, full disk, or closed: discard from now on
            with contextlib.suppress(OSError):
                self.stream.close()  # or Python would try again at exit, and fail
            self.stream = open(os.devnull, "w")  # noqa: SIM115
        return len(text)

    def flush(self) -> None:
        """Every write is flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def command(*words: object) -> str:
    """Join words into a command line that can be pasted into a shell."""
    return shlex.join(map(str, words))


def progress(
    iterable: Iterable[Any] | None = None, label: str | None = None, total: float | None = None, **options: Any
) -> tqdm:
    """Return a tqdm bar that moves on a terminal. In a log file, it prints a line now and then."""
    interval = 0.1 if sys.stderr.isatty() else LOG_FILE_INTERVAL
    defaults = {"mininterval": interval, "delay": PATIENCE, "dynamic_ncols": True}
    return tqdm(iterable, label, total, **defaults | options)


@contextlib.contextmanager
def announced(what: str, every_rank: bool = False) -> Iterator[None]:
    """Print a line on stderr if the context lasts longer than PATIENCE seconds.

    what: its text, such as "computing the FID". Only rank 0 prints it, unless every_rank.
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
