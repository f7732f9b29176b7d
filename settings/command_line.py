"""The command line, made from Config: a flag for each setting, with its type, choices, default and help.

Imports no torch, so that --help and a mistyped flag answer at once.
"""

import argparse
import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from utils.errors import UserError
from utils.launcher import own_rank

from .config import FIELDS, to_flag
from .layers import checked, element_type

a_path = os.path.expanduser  # the type of a flag that names a file or folder, where ~ is the user's home


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with a suggestion, and not the usage of forty flags."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split()[0]
            close = difflib.get_close_matches(given.split("=")[0], self._option_string_actions, 1)
            message += f"; did you mean {close[0]}?" if close else ""
        # One of the processes of a torchrun is enough.
        self.exit(2, None if own_rank() else f"error: {message} (--help lists every flag)\n")


def reader(kind: Callable[[str], Any], words: Sequence[str]) -> Callable[[str], Any]:
    """The type of a flag that may be one of these words in the place of a `kind`."""
    if not words:
        return kind

    def read(text: str) -> Any:
        return text if text in words else kind(text)

    read.__name__ = " or ".join([kind.__name__, *words])  # of argparse's message
    return read


def add_settings(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add a flag for each of these settings of Config. A flag that is not given is None in the namespace."""
    for name in names:
        f = FIELDS[name]
        kind, _, count = element_type(name)
        default = "" if f.default is None else f" (default: {to_flag(f.default)})"
        if kind is bool:
            parser.add_argument(f"--{name}", action="store_true", default=None, help=f.metadata["help"])
            parser.add_argument(f"--no_{name}", dest=name, action="store_false", default=None, help=argparse.SUPPRESS)
            continue
        parser.add_argument(
            f"--{name}",
            type=reader(kind, f.metadata["words"]),
            nargs=count or "+" if count is not None else None,
            choices=f.metadata["choices"],
            metavar=None if f.metadata["choices"] else name.upper(),
            help=(f.metadata["help"] + default).replace("%", "%%"),
        )


def given_settings(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings in an argparse namespace that were typed, checked. UserError for a bad one."""
    values = {key: value for key, value in vars(namespace).items() if key in FIELDS and value is not None}
    if "num_epochs" in values and "total_steps" in values:
        raise UserError("--total_steps and --num_epochs exclude each other")
    try:
        return {key: checked(key, value) for key, value in values.items()}
    except ValueError as error:
        raise UserError(f"--{error}") from error


def parse_args(description: str | None, argv: Sequence[str] | None = None) -> tuple[dict[str, Any], bool]:
    """Parse a training command line. Returns (flags, dry_run): the typed settings, and whether only to show them."""
    parser = Parser(description=description, allow_abbrev=False)
    add_settings(parser, FIELDS)
    parser.add_argument("--dry_run", action="store_true", help="print every setting, then stop")
    namespace = parser.parse_args(argv)
    return given_settings(namespace), namespace.dry_run
