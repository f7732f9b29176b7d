"""Locks between processes, by filelock: the system drops one with the process that holds it, however that ends."""

import contextlib
import datetime
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

ABSENT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # what a network file system without locks answers


def holder(path: str | Path) -> str:
    """Who holds a lock; "" where nobody does. What a killed process held has its name till the next one comes."""
    try:
        return _beside(Path(path)).read_text(encoding="utf-8")
    except OSError:
        return ""


@contextlib.contextmanager
def locked(path: str | Path, taken: Callable[[str], object] = lambda holder: None) -> Iterator[None]:
    """Within it no other process holds the lock that this file stands for; its folder has to exist.

    taken(who holds it) is called where another process does: it may raise, and else that process is waited for. The
    file stays behind, and locks nothing. OSError where it cannot be made; without locks in the file system, none is
    held.
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
        with contextlib.suppress(OSError):  # on a full disk nobody can be named
            _beside(path).write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}", "utf-8")
        yield
    finally:
        _beside(path).unlink(missing_ok=True)
        lock.release()


def _beside(path: Path) -> Path:
    """The file that says who holds a lock. What is written into the lock itself, another process may cut off."""
    return path.with_name(path.name + ".holder")
