"""The errors that a user can cause or must know of: shown as one message, without a traceback."""

import sys


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where and what to do. Exit code 2."""

    exit_code = 2


class Diverged(UserError):
    """A loss or a weight became NaN or infinite. Exit code 3."""

    exit_code = 3


class Stopped(UserError):
    """The run was told to stop, and saved itself. Exit code 128 + the signal's number."""

    def __init__(self, message, signal_number):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def run_as_script(main):
    """Call main(); turn a UserError into its message on stderr and its exit code, and Ctrl-C into exit code 130."""
    try:
        main()
    except UserError as error:
        print(f"\n{error}" if isinstance(error, Stopped) else f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
