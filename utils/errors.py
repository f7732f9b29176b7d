"""Errors that a user can cause or must know of, shown as one message without a traceback."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from .console import Outlet
from .launcher import launched, own_rank

# Words in the out-of-memory errors of torch and of the system.
NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory", "alloc_failed")
LOST_PEER = ("gloo", "nccl", "peer")  # in errors after another process of the group is gone


class UserError(Exception):
    """Something the user asked for cannot be done. The message names problem, place and remedy. Exit code 2."""

    exit_code = 2
    shared = True  # whether all processes of a torchrun raise it, as for a wrong flag: then one message is enough


class Damaged(UserError):
    """A file has changed since it was written, or is something else altogether."""


class Diverged(UserError):
    """A loss or a weight became NaN or infinite. Exit code 3."""

    exit_code = 3


class Stopped(UserError):
    """A signal stopped the run, which was saved. Exit code 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def refuse_if(broken: object, reason: str) -> None:
    """Raise UserError with the reason if a rule is broken."""
    if broken:
        raise UserError(reason)


@contextlib.contextmanager
def explaining_memory(what: str, advice: str) -> Iterator[None]:
    """Turn an out-of-memory error within the context into a UserError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not memory_ran_out(error):
            raise
        raise UserError(f"out of memory with {what}: {advice} ({_first_line(error)})") from error


def memory_ran_out(error: BaseException) -> bool:
    """Return whether numpy, torch or the system ran out of memory; torch's errors are RuntimeErrors."""
    if isinstance(error, (RuntimeError, OSError)):
        return type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in NO_MEMORY)
    return isinstance(error, MemoryError)


def lost_peer(error: BaseException) -> bool:
    """Return whether gloo or NCCL raised this error because another process of the group is gone."""
    named = type(error).__name__.startswith("Dist") or any(word in str(error).lower() for word in LOST_PEER)
    return isinstance(error, RuntimeError) and named


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


def run_as_script(main: Callable[[], object]) -> None:
    """Call main() with its output through an Outlet. Errors end it with a message and exit code, not a traceback."""
    with contextlib.redirect_stdout(Outlet(sys.stdout)), contextlib.redirect_stderr(Outlet(sys.stderr)):
        try:
            main()
        except (UserError, KeyboardInterrupt, RuntimeError, MemoryError, OSError) as error:
            message, code = _told(error)
            if message:
                print(message, file=sys.stderr)
            sys.exit(code)


def _told(error: BaseException) -> tuple[str, int]:
    """Return (message, exit code) for an error. Raises the error itself if it is a bug, for its traceback."""
    rank = own_rank()
    name = f"process {rank}: " if rank else ""
    if isinstance(error, UserError):
        said = f"\n{error}" if isinstance(error, Stopped) else f"{name}error: {error}"
        return "" if rank and error.shared else said, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return f"\n{name}interrupted", 130
    if memory_ran_out(error):
        return f"{name}error: out of memory; ask for fewer images at once ({_first_line(error)})", UserError.exit_code
    if launched() and lost_peer(error):
        return f"{name}stopped, since another process has ended or cannot be reached: {_first_line(error)}", 1
    raise error
