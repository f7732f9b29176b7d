"""Find the pictures and other files in a folder or .zip archive from any source."""

import functools
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError, refuse_if

from .decode import FORMATS, opener

SUFFIXES = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"} | ({".avif"} if "AVIF" in FORMATS else set())
LABELS = "dataset.json"  # the labels that StyleGAN's dataset_tool.py writes next to images
UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)  # errors of damaged archives


class Found(NamedTuple):
    """The files below a folder, on disk or in an archive."""

    root: Path
    prefix: str  # of the names in an archive
    files: list[tuple[str, int, int]]  # pictures: relative names, sizes, and times or checksums, in order
    passed: list[str]  # files of other kinds
    labels: bytes | None  # the content of LABELS


def scan(root: Path, folder: str = "") -> Found:
    """List a folder or archive, or one folder in it. Raises UserError if it cannot be read, or changes meanwhile."""
    if is_archive(root):
        return _sorted_out(root, *_below(root, folder))
    return _sorted_out(root / folder, "", _walk(root / folder))


def with_pictures(root: Path) -> tuple[list[str], bool]:
    """The folders with pictures in a folder or archive, and whether pictures lie next to them."""
    if is_archive(root):
        names = [name for name, _ in _below(root)[1] if is_picture(name)]
        return sorted({name.split("/")[0] for name in names if "/" in name}), any("/" not in name for name in names)
    folders, files = names_in(root)
    holding = [name for name in folders if any(entry and is_picture(below) for below, entry in _walk(root / name))]
    return holding, any(map(is_picture, files))


def only_pictures(root: Path) -> bool:
    """Whether a folder or archive holds pictures, and every folder in it holds some."""
    try:
        holding, beside = with_pictures(root)
        return (beside or bool(holding)) and (is_archive(root) or holding == names_in(root)[0])
    except UserError:  # it does not exist or cannot be read
        return False


def unused_labels(found: Found) -> list[Path]:
    """The LABELS files that are not read, above and below the place of the one that is."""
    unused = [found.root / found.prefix / name for name in found.passed if name.lower().split("/")[-1] == LABELS]
    above = found.root.resolve().parent / LABELS
    if is_archive(found.root):
        top, members = _below(found.root)
        unused += [found.root / top / LABELS for name, _ in members if name == LABELS and found.prefix != top]
    return unused + [above] * above.is_file()


def is_archive(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


def is_picture(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES


def _sorted_out(
    root: Path, prefix: str, members: Iterable[tuple[str, os.DirEntry[str] | zipfile.ZipInfo | None]]
) -> Found:
    files, passed, labels = [], [], None
    for name, member in members:
        if member and is_picture(name):
            files.append((name, *_facts(member)))
        elif member and name == LABELS:
            labels = _read_labels(root, prefix + name)
        else:
            passed.append(name)
    files.sort(key=lambda file: file[0].replace("/", "\0"))  # folder by folder
    return Found(root, prefix, files, sorted(passed), labels)


def _facts(member: os.DirEntry[str] | zipfile.ZipInfo) -> tuple[int, int]:
    """The size of a file and its time or, in an archive, its checksum."""
    if isinstance(member, zipfile.ZipInfo):
        return member.file_size, member.CRC
    try:
        facts = member.stat()
    except OSError as error:
        raise UserError(f"{member.path} disappeared while the folder was read: {error.strerror}") from error
    return facts.st_size, facts.st_mtime_ns


def _read_labels(root: Path, name: str) -> bytes:
    try:
        with opener(root)(name) as file:
            return file.read()
    except UNREADABLE as error:
        raise UserError(f"cannot read {root / name}: {error}") from error


# ---- Folders --------------------------------------------------------------------------------------------------------


def names_in(root: Path) -> tuple[list[str], list[str]]:
    """The names of folders in a folder, and of everything else. Hidden ones are left out."""
    entries = _entries(root)
    folders = {entry.name for entry in entries if os.path.isdir(entry.path)}
    return sorted(folders), sorted({entry.name for entry in entries} - folders)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    """Yield (relative name, entry) of everything visible below a folder. entry: None if not a file."""
    seen = set()
    waiting = [("", os.fspath(root))]
    while waiting:
        prefix, folder = waiting.pop()
        seen.add(os.path.realpath(folder))  # links may lead in a circle
        for entry in _entries(folder):
            try:
                is_file, is_folder = entry.is_file(), entry.is_dir()
            except OSError:  # a link to itself
                is_file = is_folder = False
            if not is_folder:  # a pipe is not a file: opening it would wait for ever
                yield prefix + entry.name, entry if is_file else None
            elif os.path.realpath(entry.path) not in seen:
                waiting.append((f"{prefix}{entry.name}/", entry.path))


# ---- Archives: never unpacked to disk, so that no name in one can lead out of it ------------------------------------


def _below(path: Path, folder: str = "") -> tuple[str, list[tuple[str, zipfile.ZipInfo]]]:
    """The common prefix of files in a folder of an archive, and these files without it."""
    facts = path.stat()
    members = _members(path, facts.st_size, facts.st_mtime_ns)
    names = [member.filename for member in members if is_picture(member.filename) or member.filename.lower() == LABELS]
    tops = {name.split("/")[0] if "/" in name else "" for name in names}
    # A single folder around all pictures and their labels stands for the archive and is not a class.
    top = f"{tops.pop()}/" if len(tops) == 1 and tops != {""} else ""
    prefix = top + (f"{folder}/" if folder else "")
    return prefix, [(m.filename.removeprefix(prefix), m) for m in members if m.filename.startswith(prefix)]


@functools.lru_cache(4)
def _members(path: Path, size: int, time: int) -> list[zipfile.ZipInfo]:
    """The files in an archive of this size and time. Raises UserError if it is damaged, or has a name twice."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _is_visible(member)]
    except UNREADABLE as error:
        raise UserError(f"cannot read the archive {path}: {error}") from error
    for name, count in Counter(member.filename for member in members).most_common(1):
        refuse_if(count > 1, f"{path} has two files with the same name: {name}")
    return members


def _is_visible(member: zipfile.ZipInfo) -> bool:
    link = stat.S_ISLNK(member.external_attr >> 16)
    hidden = "/." in f"/{member.filename}" or "__MACOSX" in member.filename.split("/")
    return not (member.is_dir() or link or hidden)
