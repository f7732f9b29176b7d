"""Which pictures there are, in a folder or a .zip archive: their splits, their classes, and what is passed over."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError, refuse_if

from .scan import (
    LABELS,
    SUFFIXES,
    Found,
    holds_pictures,
    is_archive,
    is_picture,
    opened,
    scan_archive,
    scan_folder,
    top_of,
)

MAX_CLASSES = 100_000
TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")


class Listing(NamedTuple):
    """The pictures of one split."""

    root: Path  # the folder, or the archive
    prefix: str  # of all names in an archive
    names: list[str]  # of the pictures, relative to root, with /, in the order of folders and names
    labels: list[int]  # -1: unknown
    classes: tuple[str, ...]
    digest: str  # of names, sizes and times
    notes: tuple[str, ...]  # sentences about what was taken and what was not


def list_split(data_dir: str | Path, split: str) -> Listing:
    """The pictures of a split of a folder or .zip archive. UserError where there are none, or what they are is open."""
    root = Path(data_dir)
    splits, notes = _splits(root)
    found = _found(root, splits.get(split, splits.get("train", "")))
    where = found.root / found.prefix if found.prefix else found.root
    if not found.files:
        passed = f" ({_passed_over(found.passed)})" if found.passed else ""
        raise UserError(f"no images below {where.resolve()}; it takes {', '.join(sorted(SUFFIXES))}{passed}")
    classes, labels, more = _classes(found, where)
    if split == "test" and "test" in splits:  # test images have the training classes' numbers
        known, _, _ = _classes(_found(root, splits["train"]), where)
        number = {name: i for i, name in enumerate(known)}
        classes, labels = known, [number.get(classes[label], -1) if label >= 0 else -1 for label in labels]
    if found.passed:
        more.append(f"passed over in {where}: {_passed_over(found.passed)}")
    relative = [name for name, _, _ in found.files]
    digest = hashlib.sha256("\0".join((*relative, "", *classes)).encode("utf-8", "surrogateescape"))
    for numbers in ([size for _, size, _ in found.files], [time for _, _, time in found.files], labels):
        digest.update(np.fromiter(numbers, "<i8").tobytes())
    names = [found.prefix + name for name in relative]
    return Listing(found.root, found.prefix, names, labels, classes, digest.hexdigest(), (*notes, *more))


def has_test_split(data_dir: str | Path) -> bool:
    """Whether a folder or archive has test images apart from its training images."""
    return "test" in _splits(Path(data_dir))[0]


def empty_folders(data_dir: str | Path) -> set[str]:
    """The names of the folders among a training split's class folders that hold no file at all; {} of an archive."""
    root = Path(data_dir)
    if is_archive(root):
        return set()
    root = root / _splits(root)[0].get("train", "")
    return {name for name in top_of(root)[0] if not any(names for *_, names in os.walk(root / name))}


# ---- Splits ---------------------------------------------------------------------------------------------------------


def _found(root: Path, folder: str) -> Found:
    """The files of a split's folder, or of all where that is ""."""
    if is_archive(root):
        return scan_archive(root, opened(root).top + (f"{folder}/" if folder else ""))
    return scan_folder(root / folder)


def _splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folders that hold the splits, {} where every picture is in both; and what is said of that."""
    if is_archive(root):
        found = opened(root)
        inside = [name[len(found.top) :] for name, *_ in found.files]
        tops = {name.split("/")[0] for name in inside if "/" in name}
        return choose_splits(sorted(tops), any("/" not in name for name in inside), root)
    if root.is_file():
        raise UserError(f"images are read from a folder or a .zip archive, and {root} is neither")
    if not root.is_dir():
        raise UserError(f"images are read from a folder or a .zip archive, and {root.resolve()} is not a folder")
    folders, files = top_of(root)
    if not any(name.lower() in TRAIN for name in folders):
        return {}, []
    return choose_splits([name for name in folders if holds_pictures(root / name)], any(map(is_picture, files)), root)


def choose_splits(folders: Iterable[str], beside: bool, root: Path) -> tuple[dict[str, str], list[str]]:
    """Which of the folders that hold pictures are the splits, by their names, where nothing else stands beside them.

    beside: whether pictures do. Returns ({"train": folder, "test": folder}, notes); {} where the folders are classes.
    UserError where two folders could be the same split.
    """
    kinds: dict[str, list[str]] = {"train": [], "test": [], "validation": [], "other": []}
    for name in folders:
        words = {"train": TRAIN, "test": TEST, "validation": VALIDATION}
        kinds[next((kind for kind in words if name.lower() in words[kind]), "other")].append(name)
    if not kinds["train"]:
        return {}, []
    if kinds["other"] or beside:
        others = ", ".join(kinds["other"][:3]) or "pictures"
        return {}, [f"{kinds['train'][0]} in {root} is taken for a class: {others} stand beside it"]
    for kind in ("train", "test", "validation"):
        refuse_if(
            len(kinds[kind]) > 1,
            f"{' and '.join(kinds[kind])} in {root} could both be the {kind} images: rename one, or move it elsewhere",
        )
    splits = {"train": kinds["train"][0]}
    if held_out := kinds["test"] or kinds["validation"]:
        splits["test"] = held_out[0]
    unused = kinds["validation"] if kinds["test"] else []
    said = f"of {root}, {splits['train']}/ is trained on"
    said += f", and {splits['test']}/ are the test images" if "test" in splits else ", and there are no test images"
    return splits, [said + "".join(f"; {name}/ is not used" for name in unused)]


# ---- Classes --------------------------------------------------------------------------------------------------------


def _classes(found: Found, where: Path) -> tuple[tuple[str, ...], list[int], list[str]]:
    """The classes, each picture's number among them, and what is said of that."""
    names = [name for name, _, _ in found.files]
    if found.labels is not None:
        return _of_json(found.labels, names, where)
    stray = [name for name in names if "/" not in name]
    if not stray:
        folders = [name[: name.index("/")] for name in names]
        classes = tuple(sorted(set(folders)))
        number = {name: i for i, name in enumerate(classes)}
        return classes, [number[folder] for folder in folders], []
    notes = []
    if len(stray) < len(names):
        notes.append(
            f"the folders in {where} are not taken for classes, since {counted(stray, 'image')} "
            f"{'lies' if len(stray) == 1 else 'lie'} beside them: {_some(stray)}"
        )
    return (), [-1] * len(names), notes


def _of_json(content: bytes, names: list[str], where: Path) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Classes by StyleGAN's dataset.json: {"labels": [[name, number], ...]}, or null for none."""
    try:
        read = json.loads(content)
        pairs = read["labels"] if isinstance(read, dict) else read
        if not pairs:
            return (), [-1] * len(names), [f"{where / LABELS} has no labels"]
        number = dict(pairs)
        if not all(type(label) is int and 0 <= label < MAX_CLASSES for label in number.values()):
            raise ValueError(f"labels are whole numbers from 0 to {MAX_CLASSES - 1:,}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{where / LABELS} is not as StyleGAN's tools write it: {error}") from error
    missing = [name for name in names if name not in number]
    refuse_if(missing, f"{where / LABELS} has no label of {counted(missing, 'image')}: {_some(missing)}")
    labels = [number[name] for name in names]
    count = max(labels) + 1
    return tuple(map(str, range(count))), labels, [f"labels are those of {where / LABELS}: {count} classes"]


# ---- Words ----------------------------------------------------------------------------------------------------------


def counted(items: list[str], what: str) -> str:
    return f"{len(items):,} {what}{'s' * (len(items) != 1)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _passed_over(names: list[str]) -> str:
    """12 files (10 .txt, 2 without a suffix), such as notes.txt."""
    kinds = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in names)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    return f"{counted(names, 'file')} ({counts}): {_some(names)}"
