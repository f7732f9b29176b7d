"""The terminal, or what stands in its place: a pipe, a log file, nothing at all."""

import contextlib
import os
import select
import shlex
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from .launcher import own_rank

LOG_FILE_INTERVAL = 30  # seconds between a progress bar's updates where nobody watches it move
PATIENCE = 5  # seconds before a bar, or what stands in its place, is shown at all


class Outlet:
    """stdout or stderr, which a run must not depend on: log.txt holds what a reader misses who is gone or asleep."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115, None where a process starts without one

    def write(self, text: str) -> int:
        with self._forgiven():
            if not self._blocked():
                self.stream.write(self._encodable(text))
                self.stream.flush()
        return len(text)

    def flush(self) -> None:
        """Every write is flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _encodable(self, text: str) -> str:
        """The text with what the terminal does not know, or what is no text in a file's name, written as codes."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _blocked(self) -> bool:
        """Whether this is a pipe too full for another line."""
        try:
            number = self.stream.fileno()
            return stat.S_ISFIFO(os.fstat(number).st_mode) and not select.select([], [number], [], 0)[1]
        except (OSError, ValueError, AttributeError):  # no file at all, as in a notebook
            return False

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        """Pass over a pipe without a reader, a closed terminal or a full disk: from then on, to nowhere."""
        try:
            yield
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        except ValueError:  # it is closed
            pass


def command(*words: object) -> str:
    """Words of a command line so that they can be pasted into a shell."""
    return shlex.join(map(str, words))


def progress(
    iterable: Iterable[Any] | None = None,
    label: str | None = None,
    total: float | None = None,
    delay: float = PATIENCE,
    **options: Any,
) -> tqdm:
    """A tqdm bar that moves on a terminal and leaves a line now and then in a log file."""
    interval = 0.1 if sys.stderr.isatty() else LOG_FILE_INTERVAL
    return tqdm(iterable, label, total, mininterval=interval, delay=delay, dynamic_ncols=True, **options)


@contextlib.contextmanager
def announced(what: str, delay: float = PATIENCE) -> Iterator[None]:
    """Within it, a line on stderr says what is done where that takes longer than `delay` seconds and has no bar.

    what: such as "computing the FID". Of several processes, the first alone says it.
    """
    if own_rank():
        yield
        return
    timer = threading.Timer(delay, lambda: tqdm.write(f"{what} ...", file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
