"""Files that are there whole or not at all, and files of tensors that may come from anyone.

They are written beside their place and renamed, and read with weights_only=True: nothing in them is ever executed.
"""

import contextlib
import hashlib
import itertools
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .errors import UserError


def write_atomically(path: str | Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Call write(temporary path), then rename to path: the file is there whole or not at all.

    durable: also after a power cut, for which the disk is waited for; it may be the file of before then.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)  # it is still there if something went wrong


def write_text(path: str | Path, text: str, durable: bool = True) -> None:
    """Write a text file atomically; what is no text in a file's name stands there as a code."""
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace"), durable)


def check_writable(folder: str | Path, what: object) -> None:
    """Raise UserError where something cannot be put into a folder, since that is none or must not be written to."""
    if not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        there = "is not a folder that can be written to" if os.path.lexists(folder) else "does not exist"
        raise UserError(f"{what} cannot be written: {folder} {there}")


def numbered(path: Path) -> Iterator[Path]:
    """This path, and then with -2, -3, ... behind its name."""
    yield path
    yield from (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))


def check_target(path: str | Path | None) -> None:
    """Raise UserError where a file that was asked for cannot be put there."""
    if path:
        check_writable(Path(path).parent, path)


def make_folder(folder: str | Path, name: str | None = None) -> None:
    """Make a folder and those above it, where they are not there. UserError, under this name, where they cannot be."""
    with writing_into(name or folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing_into(folder: str | Path) -> Iterator[None]:
    """Within it, an OSError becomes a UserError that names the folder which cannot be written into."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}") from error


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Save a dict of tensors and plain values atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # torch itself cannot open a name that is no UTF-8
            torch.save(content, file)

    write_atomically(path, write)


def load_tensors(path: str | Path) -> Any:
    """torch.load() of a file that may come from anyone, to the CPU: nothing is executed, nothing unpacks to more.

    Any error of torch or zipfile where it is no such file; ValueError for a wrong bit, which torch would load.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
            raise ValueError("compressed, or sizes that are not true: torch.save() writes neither")
        if archive.testzip():
            raise ValueError("a checksum is wrong")
    with warnings.catch_warnings(action="ignore"):  # about pickle protocols, of files that are refused anyway
        content = torch.load(path, map_location="cpu", weights_only=True)
    _check_tensors(content)
    return content


def _check_tensors(content: Any) -> None:
    """Raise ValueError for a tensor that is larger than what is stored of it: a few bytes can stand for any number."""
    if isinstance(content, torch.Tensor):
        plain = content.layout is torch.strided and content.device.type == "cpu" and not content.is_quantized
        if not plain or content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError("a tensor without its numbers")
    elif isinstance(content, (dict, list, tuple)):
        for part in content.values() if isinstance(content, dict) else content:
            _check_tensors(part)


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
