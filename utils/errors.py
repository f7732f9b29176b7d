"""The errors that a user can cause or must know of: shown as one message, without a traceback."""

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator

from .console import Outlet
from .launcher import launched, own_rank


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where and what to do. Exit code 2."""

    exit_code = 2
    shared = False  # whether every process of a torchrun raises it, so that one message is enough


class Damaged(UserError):
    """A file is not what it was written as, or something else altogether."""


class Diverged(UserError):
    """A loss or a weight became NaN or infinite. Exit code 3."""

    exit_code, shared = 3, True


class Stopped(UserError):
    """The run was told to stop, and saved itself. Exit code 128 + the signal's number."""

    shared = True

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def refuse_if(broken: object, reason: str) -> None:
    """Raise UserError with the reason where a rule is broken."""
    if broken:
        raise UserError(reason)


@contextlib.contextmanager
def explaining_memory(what: str, advice: str) -> Iterator[None]:
    """Turn torch's error where memory ran out into a UserError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not memory_ran_out(error):
            raise
        raise UserError(f"out of memory with {what}: {advice} ({_first_line(error)})") from error


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error is that of numpy, torch or the system for it: on CUDA and a CPU torch's are RuntimeErrors."""
    said = str(error).lower()
    words = ("can't allocate memory", "bad_alloc", "out of memory", "alloc_failed")
    of_torch = isinstance(error, RuntimeError) and any(word in said for word in words)
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or of_torch or getattr(error, "errno", None) == errno.ENOMEM


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]


def run_as_script(main: Callable[[], object]) -> None:
    """Call main(); turn a UserError into its message on stderr and its exit code, and Ctrl-C into exit code 130.

    What is printed meanwhile goes through an Outlet.
    """
    with contextlib.redirect_stdout(Outlet(sys.stdout)), contextlib.redirect_stderr(Outlet(sys.stderr)):
        _run(main)


def _run(main: Callable[[], object]) -> None:
    rank = own_rank()
    name = f"process {rank}: " if rank else ""
    try:
        main()
    except UserError as error:
        if not (rank and error.shared):
            print(f"\n{error}" if isinstance(error, Stopped) else f"{name}error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"\n{name}interrupted", file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, MemoryError, OSError) as error:
        if memory_ran_out(error):
            print(f"{name}error: out of memory; ask for less at once ({_first_line(error)})", file=sys.stderr)
            sys.exit(UserError.exit_code)
        if not _lost_another(error):
            raise
        why = f"another process has ended, or cannot be reached: {_first_line(error)}"
        print(f"{name}stops, since {why}", file=sys.stderr)
        sys.exit(1)


def _lost_another(error: BaseException) -> bool:
    """Whether an error is what gloo or NCCL raise where another process of the group is gone."""
    text = str(error).lower()
    return launched() and (
        type(error).__name__.startswith("Dist") or any(word in text for word in ("gloo", "nccl", "peer"))
    )
