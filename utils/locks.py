"""Locks between processes, by filelock: the system releases a lock when its process ends, for whatever reason."""

import contextlib
import datetime
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

ABSENT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # from a network file system without locks


def holder(path: str | Path) -> str:
    """Return who holds a lock, or "". A killed process is still named until the next one takes the lock."""
    try:
        return _beside(Path(path)).read_text(encoding="utf-8")
    except OSError:
        return ""


@contextlib.contextmanager
def locked(path: str | Path, taken: Callable[[str], object] = lambda holder: None) -> Iterator[None]:
    """Hold the lock that a file represents, which no other process can hold meanwhile. Its folder must exist.

    taken(holder) is called if another process holds it; it may raise, otherwise that process is waited for. The file
    remains, and locks nothing. On a file system without locks, none is held. Raises OSError if the file cannot be made.
    """
    path = Path(path)
    path.parent.stat()  # filelock would make the folder
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            taken(holder(path))
            lock.acquire()
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    try:
        with contextlib.suppress(OSError):  # on a full disk the holder is not named
            _beside(path).write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}", "utf-8")
        yield
    finally:
        _beside(path).unlink(missing_ok=True)
        lock.release()


def _beside(path: Path) -> Path:
    """Return the file that names a lock's holder. Text in the lock itself could be cut off by another process."""
    return path.with_name(path.name + ".holder")
