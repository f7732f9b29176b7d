"""The command line, made from Config: a flag for each setting, with its type, choices, default and help.

Imports no torch, so that --help and a mistyped flag answer at once.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from utils.errors import UserError, refuse_if
from utils.launcher import own_rank

from .config import FIELDS, GROUPS, to_flag
from .layers import checked, element_type
from .words import suggestion

a_path = os.path.expanduser  # the type of a flag that names a file or folder, where ~ is the user's home
PLACEHOLDERS = {int: "N", float: "X", str: "NAME"}
LARGEST_SEED = 2**32


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations, whose errors are one line, with a suggestion.

    example: the words after the script's name in the usage line.
    """

    def __init__(self, description: str | None, example: str, **options: Any) -> None:
        super().__init__(usage=f"python %(prog)s {example}", description=description, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but refuse repeated flags. A setting may repeat one of scripts/: the last counts."""
        words = [word.split("=")[0] for word in (sys.argv[1:] if args is None else args)]
        typed = [self._option_string_actions[word].dest for word in words if word in self._option_string_actions]
        for name in {name for name in typed if typed.count(name) > 1}:
            if name not in FIELDS:
                self.error(f"--{name} is given twice: give it once")
            if not own_rank():
                print(f"--{name} is given twice: the last one counts", file=sys.stderr)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split()[0]
            message += suggestion(given.split("=")[0], self._option_string_actions)
        if message.endswith("arguments"):
            message += ", with spaces between them"
        # Under torchrun, one process prints it.
        self.exit(2, None if own_rank() else f"error: {message} (--help lists every flag)\n")


def number_range(text: str) -> range:
    """Convert `7` or `0-63` to a range of seeds or labels. Raises UserError if it is neither."""
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        found = range(0)
    wrong = not found or found.stop > LARGEST_SEED
    refuse_if(wrong, f"{text[:50]!r} is neither a number such as 7 nor a range such as 0-63")
    return found


def add_settings(parser: argparse._ActionsContainer, names: Iterable[str]) -> None:
    """Add a flag for each of these settings of Config. Its value is text for given_settings(), or None if not given."""
    for name in names:
        meta, default = FIELDS[name].metadata, FIELDS[name].default
        kind, _, count = element_type(name)
        if kind is bool:
            parser.add_argument(f"--{name}", nargs="?", const=True, metavar="true|false", help=meta["help"])
            parser.add_argument(f"--no_{name}", dest=name, action="store_false", default=None, help=argparse.SUPPRESS)
            continue
        choices = [*map(str, meta["choices"] or ())]
        single = f"{{{','.join(choices)}}}" if choices and count is None else None
        several = f". One or more of {', '.join(choices)}" if choices and not single else ""
        shown = "" if default is None else f" (default: {to_flag(default)})"
        parser.add_argument(
            f"--{name}",
            nargs=count or "+" if count is not None else None,
            metavar=single or meta["metavar"] or ("PATH" if meta["path"] else PLACEHOLDERS[kind]),
            help=(meta["help"] + several + shown).replace("%", "%%"),
        )


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line that set these values. None becomes `no --NAME`, for messages only."""
    words = []
    for name, value in settings.items():
        if value is None:
            words += ["no", f"--{name}"]
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]
    return words


def given_settings(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were typed, checked. Raises UserError if one is bad."""
    values = {key: value for key, value in vars(namespace).items() if key in FIELDS and value is not None}
    try:
        read = {key: checked(key, value) for key, value in values.items()}
    except ValueError as error:
        raise UserError(f"--{error}") from error
    both = read.get("num_epochs") is not None and "total_steps" in read
    refuse_if(both, "--total_steps and --num_epochs exclude each other: give one of them")
    return read


def parse_args(description: str | None, argv: Sequence[str] | None = None) -> tuple[dict[str, Any], bool]:
    """Parse a training command line. Returns (flags, dry_run): the typed settings, and whether to only show them."""
    parser = Parser(description, "[--dataset digits] [--model dcgan] [--loss hinge] [--run_dir runs/demo] ...")
    for title in GROUPS:
        names = [name for name, f in FIELDS.items() if f.metadata["group"] == title]
        add_settings(parser.add_argument_group(title), names)
    parser.add_argument("--dry_run", action="store_true", help="print all settings and where they come from, then stop")
    namespace = parser.parse_args(argv)
    return given_settings(namespace), namespace.dry_run
