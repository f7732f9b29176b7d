"""The files below a folder or in a .zip archive, either of which may come from anyone: pictures, and what is none."""

import functools
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError, refuse_if

from .decode import FORMATS, UNPACKED

SUFFIXES = {
    suffix
    for suffixes, form in (
        (".png .apng", "PNG"),
        (".jpg .jpeg .jpe .jfif", "JPEG"),
        (".bmp", "BMP"),
        (".webp", "WEBP"),
        (".gif", "GIF"),
        (".tif .tiff", "TIFF"),
        (".ppm .pgm .pbm .pnm", "PPM"),
        (".avif", "AVIF"),
    )
    if form in FORMATS
    for suffix in suffixes.split()
}
LABELS = "dataset.json"  # what StyleGAN's dataset_tool.py writes beside images
MAX_LABELS = 2**28  # bytes of it


class Found(NamedTuple):
    """The files below a folder, or below one in an archive: relative names with sizes and times, in order."""

    root: Path
    prefix: str  # of the names in an archive
    files: list[tuple[str, int, int]]
    passed: list[str]  # files of other kinds
    labels: bytes | None  # the content of LABELS


def _by_parts(file: tuple[str, int, int]) -> str:
    """What sorts names as lists of folders and name do."""
    return file[0].replace("/", "\0")


def is_archive(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


# ---- Folders --------------------------------------------------------------------------------------------------------


def is_picture(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def top_of(root: Path) -> tuple[list[str], list[str]]:
    """The names of the folders in a folder, and of all else in it; hidden ones are left out."""
    visible = [entry for entry in _entries(root) if not entry.name.startswith(".")]
    folders = {entry.name for entry in visible if os.path.isdir(entry.path)}
    return sorted(folders), sorted({entry.name for entry in visible} - folders)


def holds_pictures(folder: Path) -> bool:
    return any(entry and is_picture(name) for name, entry in _walk(folder))


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    """Every file below a folder by its relative name, and None for what is none; hidden ones are left out."""
    seen = set()
    waiting = [("", os.fspath(root))]
    while waiting:
        prefix, folder = waiting.pop()
        seen.add(os.path.realpath(folder))  # links may lead in a circle
        for entry in _entries(folder):
            name = entry.name
            if name[0] == ".":
                continue
            try:
                is_file, is_folder = entry.is_file(), entry.is_dir()
            except OSError:  # a link to itself
                is_file = is_folder = False
            if not is_folder:  # to open a pipe would wait for ever
                yield prefix + name, entry if is_file else None
            elif os.path.realpath(entry.path) not in seen:
                waiting.append((f"{prefix}{name}/", entry.path))


def scan_folder(root: Path) -> Found:
    """The pictures below a folder. UserError where it cannot be read, or changes meanwhile."""
    files, passed, labels = [], [], None
    for name, entry in _walk(root):
        if entry is None:
            passed.append(name)
        elif is_picture(name):
            try:
                facts = entry.stat()
            except OSError as error:
                raise UserError(f"{entry.path} was there, and is gone: {error.strerror}") from error
            files.append((name, facts.st_size, facts.st_mtime_ns))
        elif name == LABELS:
            labels = _read_labels(Path(entry.path))
        else:
            passed.append(name)
    files.sort(key=_by_parts)
    return Found(root, "", files, sorted(passed), labels)


def _read_labels(path: Path) -> bytes:
    with open(path, "rb") as file:
        content = file.read(MAX_LABELS + 1)
    refuse_if(len(content) > MAX_LABELS, f"{path} is too long for labels")
    return content


# ---- Archives -------------------------------------------------------------------------------------------------------


class Archive(NamedTuple):
    """What a .zip archive holds: the pictures' names, and the folder that holds everything, where there is one."""

    files: list[tuple[str, int, int]]
    passed: list[str]
    top: str
    labels: Mapping[str, bytes]  # the content of each LABELS


def opened(path: Path) -> Archive:
    facts = path.stat()
    return _read_archive(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(4)
def _read_archive(path: Path, size: int, time: int) -> Archive:
    """The members of an archive of this size and time. UserError for one that is damaged or meant to do harm."""
    files, passed, labels = [], [], {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            counts = Counter(member.filename for member in members)
            for name, count in counts.items():
                refuse_if(count > 1, f"{path} has two files of one name: {name}")
                parts = name.replace("\\", "/").split("/")
                outside = ".." in parts or parts[0] == "" or re.match("[A-Za-z]:", name)
                refuse_if(outside, f"{path} has a file whose name leads out of it: {name}")
            for member in members:
                name = member.filename
                parts = name.split("/")
                link = stat.S_ISLNK(member.external_attr >> 16)
                if "__MACOSX" in parts or link or any(part.startswith(".") for part in parts):
                    continue
                if is_picture(name):
                    files.append((name, member.file_size, member.CRC))
                elif parts[-1] == LABELS:
                    refuse_if(member.file_size > MAX_LABELS, f"{name} in {path} is too long for labels")
                    refuse_if(member.compress_type not in UNPACKED, f"{name} in {path} is not stored or deflated")
                    labels[name] = archive.read(member)
                else:
                    passed.append(name)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as error:
        raise UserError(f"cannot read the archive {path}: {error}") from error
    tops = {name.split("/")[0] if "/" in name else "" for name, *_ in files}
    nested = tops != {""} and len(tops) == 1  # everything in one folder: its name is the archive's, and no class
    files.sort(key=_by_parts)
    return Archive(files, sorted(passed), f"{tops.pop()}/" if nested else "", labels)


def scan_archive(path: Path, prefix: str) -> Found:
    content = opened(path)
    files = [(name[len(prefix) :], size, crc) for name, size, crc in content.files if name.startswith(prefix)]
    passed = [name for name in content.passed if name.startswith(prefix)]
    return Found(path, prefix, files, passed, content.labels.get(prefix + LABELS))
