"""The errors that a user can cause or must know of: shown as one message, without a traceback."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from .console import Outlet
from .launcher import launched, own_rank

# In the errors of torch and of the system.
NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory", "alloc_failed")
LOST_PEER = ("gloo", "nccl", "peer")  # in those of processes whose group is broken


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where and what to do. Exit code 2."""

    exit_code = 2
    shared = True  # whether every process of a torchrun raises it, as for a wrong flag, so that one message is enough


class Damaged(UserError):
    """A file is not what it was written as, or something else altogether."""


class Diverged(UserError):
    """A loss or a weight became NaN or infinite. Exit code 3."""

    exit_code = 3


class Stopped(UserError):
    """The run was told to stop, and saved itself. Exit code 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def refuse_if(broken: object, reason: str) -> None:
    """Raise UserError with the reason where a rule is broken."""
    if broken:
        raise UserError(reason)


@contextlib.contextmanager
def explaining_memory(what: str, advice: str) -> Iterator[None]:
    """Turn an error of too little memory into a UserError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not memory_ran_out(error):
            raise
        raise UserError(f"out of memory with {what}: {advice} ({_first_line(error)})") from error


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error is numpy's, torch's or the system's for too little memory; torch's are RuntimeErrors."""
    if isinstance(error, (RuntimeError, OSError)):
        return type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in NO_MEMORY)
    return isinstance(error, MemoryError)


def lost_peer(error: BaseException) -> bool:
    """Whether an error is what gloo and NCCL raise where another process of the group is gone."""
    named = type(error).__name__.startswith("Dist") or any(word in str(error).lower() for word in LOST_PEER)
    return isinstance(error, RuntimeError) and named


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


def run_as_script(main: Callable[[], object]) -> None:
    """Call main(), with its output through an Outlet; end with a message and an exit code in place of a traceback."""
    with contextlib.redirect_stdout(Outlet(sys.stdout)), contextlib.redirect_stderr(Outlet(sys.stderr)):
        try:
            main()
        except (UserError, KeyboardInterrupt, RuntimeError, MemoryError, OSError) as error:
            message, code = _told(error)
            if message:
                print(message, file=sys.stderr)
            sys.exit(code)


def _told(error: BaseException) -> tuple[str, int]:
    """(What the user is told of an error, exit code). Raises an error of the program itself, for its traceback."""
    rank = own_rank()
    name = f"process {rank}: " if rank else ""
    if isinstance(error, UserError):
        said = f"\n{error}" if isinstance(error, Stopped) else f"{name}error: {error}"
        return "" if rank and error.shared else said, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return f"\n{name}interrupted", 130
    if memory_ran_out(error):
        return f"{name}error: out of memory; ask for less at once ({_first_line(error)})", UserError.exit_code
    if launched() and lost_peer(error):
        return f"{name}stops, since another process has ended, or cannot be reached: {_first_line(error)}", 1
    raise error
