"""The errors that a user can cause or must know of: shown as one message, without a traceback."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from .console import Outlet


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
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        ran_out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not ran_out and "can't allocate memory" not in str(error):
            raise
        raise UserError(f"out of memory with {what}: {advice} ({error})") from error


def run_as_script(main: Callable[[], object]) -> None:
    """Call main(); turn a UserError into its message on stderr and its exit code, and Ctrl-C into exit code 130.

    What is printed meanwhile goes through an Outlet.
    """
    with contextlib.redirect_stdout(Outlet(sys.stdout)), contextlib.redirect_stderr(Outlet(sys.stderr)):
        _run(main)


def _run(main: Callable[[], object]) -> None:
    rank = int(os.environ.get("RANK", 0))
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
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        first = str(error).strip().split("\n")[0][:200]
        print(f"{name}stops, since another process has ended, or cannot be reached: {first}", file=sys.stderr)
        sys.exit(1)


def _lost_another(error: RuntimeError) -> bool:
    """Whether an error is what gloo or NCCL raise where another process of the group is gone."""
    among = int(os.environ.get("WORLD_SIZE", 1)) > 1
    text = str(error).lower()
    return among and (type(error).__name__.startswith("Dist") or any(word in text for word in ("gloo", "nccl", "peer")))
