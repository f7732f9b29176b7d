"""List the pictures in a folder or .zip archive: splits, classes and skipped files."""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from settings.config import Config
from utils.errors import UserError, refuse_if

from .scan import LABELS, SUFFIXES, Found, is_archive, names_in, scan, unused_labels, with_pictures

MAX_CLASSES = 100_000
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # a folder's name -> its split
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "validation")
WHOLE = re.compile(r"\d{1,18}").fullmatch  # matches a name that is a number
# Pictures that are not read (.avif only by some builds of Pillow)
OTHERS = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".svg", ".tga"}


class Listing(NamedTuple):
    """The pictures of one split."""

    root: Path  # the folder, or the archive
    prefix: str  # of all names in an archive
    names: list[str]  # of the pictures, relative to root, with /, sorted by folder and name
    labels: list[int]  # -1: unknown
    classes: tuple[str, ...]
    digest: str  # of names, sizes and times
    notes: tuple[str, ...]  # sentences about which files are used and which are not


def list_split(data_dir: str | Path, split: str, class_order: str = Config.class_order) -> Listing:
    """List a split of a folder or .zip archive. Raises UserError if it has no pictures, or is ambiguous or damaged."""
    root = Path(data_dir)
    splits, notes = _splits(root)
    found = scan(root, splits.get(split, splits.get("train", "")))
    where = found.root / found.prefix if found.prefix else found.root
    passed = f" ({_passed_over(found.passed)})" if found.passed else ""
    passed += ". Name their folder or .zip archive with --data_dir" * (root == Path(Config.data_dir))
    refuse_if(not found.files, f"no images below {where.resolve()}; accepted: {', '.join(sorted(SUFFIXES))}{passed}")
    classes, labels, more = _classes(found, where, class_order)
    if split == "test" and "test" in splits:  # test images are numbered by the training classes
        known, _, _ = _classes(scan(root, splits["train"]), where, class_order)
        number = {name: i for i, name in enumerate(known)}
        new = [name for name in classes if name not in number]
        more += [f"test images of classes without training images count as unlabelled: {some(new)}"] * bool(new)
        classes, labels = known, [number.get(classes[label], -1) if label >= 0 else -1 for label in labels]
    if found.passed:
        more.append(f"skipped in {where}: {_passed_over(found.passed)}")
    way = f"since labels are read from {where / LABELS}: move it there, or name its folder with --data_dir"
    more += [f"{path} is not used, {way}" for path in unused_labels(found)]
    relative, sizes, times = zip(*found.files)
    digest = hashlib.sha256("\0".join((*relative, "", *classes)).encode("utf-8", "surrogateescape"))
    for numbers in (sizes, times, labels):
        digest.update(np.fromiter(numbers, "<i8").tobytes())
    names = [found.prefix + name for name in relative]
    return Listing(found.root, found.prefix, names, labels, classes, digest.hexdigest(), (*notes, *more))


def has_test_split(data_dir: str | Path) -> bool:
    """Whether a folder or archive has test images separate from its training images."""
    return "test" in _splits(Path(data_dir))[0]


def empty_folders(data_dir: str | Path) -> set[str]:
    """The names of the training split's class folders without files. Empty for an archive."""
    root = Path(data_dir)
    if is_archive(root):
        return set()
    root = root / _splits(root)[0].get("train", "")
    return {name for name in names_in(root)[0] if not any(names for *_, names in os.walk(root / name))}


# ---- Splits ---------------------------------------------------------------------------------------------------------


def _splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """Find the folders of the splits. Returns them, {} if every picture is in both, and notes."""
    if not is_archive(root):
        there = "is neither" if root.exists() else "does not exist: say where your images are with --data_dir"
        refuse_if(not root.is_dir(), f"images are read from a folder or .zip archive, but {root.resolve()} {there}")
        if "train" not in {SPLITS.get(name.lower()) for name in names_in(root)[0]}:
            return {}, []  # faster than with_pictures(), which looks into each folder
    return choose_splits(*with_pictures(root), root)


def choose_splits(folders: Iterable[str], beside: bool, root: Path) -> tuple[dict[str, str], list[str]]:
    """Choose the splits by name from the folders with pictures, unless there is anything else.

    beside: whether pictures lie next to the folders. Returns ({"train": folder, "test": folder}, notes), or ({}, notes)
    if the folders are classes. Raises UserError if two folders could be the same split.
    """
    kinds = defaultdict(list)
    for name in folders:
        kinds[SPLITS.get(name.lower(), "other")].append(name)
    if not kinds["train"]:
        return {}, []
    if kinds["other"] or beside:
        others = ", ".join(kinds["other"][:3]) or "pictures"
        return {}, [f"{kinds['train'][0]} in {root} is taken for a class, because of {others} next to it"]
    for kind, names in kinds.items():
        they = " and ".join(names)
        refuse_if(len(names) > 1, f"{they} in {root} could both be the {kind} images: rename one, or move it elsewhere")
    splits = {"train": kinds["train"][0]}
    said = f"{root}: {splits['train']}/ is used for training"
    if not (held_out := kinds["test"] + kinds["validation"]):
        return splits, [f"{said}, without test images"]
    splits["test"] = held_out[0]
    unused = "".join(f"; {name}/ is not used" for name in held_out[1:])
    return splits, [f"{said}, {splits['test']}/ for testing{unused}"]


# ---- Classes --------------------------------------------------------------------------------------------------------


def in_order(names: Iterable[str], class_order: str = Config.class_order) -> tuple[str, ...]:
    """Sort class names: whole numbers by value, unless class_order is text."""
    ordered = sorted(names)
    return tuple(sorted(ordered, key=int) if class_order == "natural" and all(map(WHOLE, ordered)) else ordered)


def _classes(found: Found, where: Path, class_order: str) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Find the classes, each picture's label, and notes about them."""
    names = [name for name, _, _ in found.files]
    if found.labels is not None:
        return _of_json(found.labels, names, where)
    stray = [name for name in names if "/" not in name]
    if not stray:
        folders = [name[: name.index("/")] for name in names]
        classes = in_order(set(folders), class_order)
        number = {name: i for i, name in enumerate(classes)}
        return classes, [number[folder] for folder in folders], []
    note = f"the folders in {where} are not taken for classes, because images lie next to them: {some(stray)}"
    return (), [-1] * len(names), [note] * (len(stray) < len(names))


def _of_json(content: bytes, names: list[str], where: Path) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Read classes from StyleGAN's dataset.json: {"labels": [[name, number], ...]}, or null instead of the list."""
    path = where / LABELS
    try:
        read = json.loads(content)
        pairs = read["labels"] if isinstance(read, dict) else read
        if not pairs:
            return (), [-1] * len(names), [f"{path} has no labels: delete it if the folders are the classes"]
        number = {name: label for name, label in dict(pairs).items() if label is not None}
        for name, label in number.items():
            if type(label) is not int or not 0 <= label < MAX_CLASSES:
                told = f"and that of {name} is {repr(label)[:50]}"
                raise ValueError(f"labels must be whole numbers from 0 to {MAX_CLASSES - 1:,}, {told}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} does not have the format of StyleGAN's tools: {error}") from error
    missing, absent = [name for name in names if name not in number], sorted(map(str, number.keys() - set(names)))
    others = [f"{path} has labels for files that are not among the pictures: {some(absent)}"] * bool(absent)
    way = "label every picture, or delete that file to train without labels"
    refuse_if(missing, "; ".join([f"{path} has no label for {some(missing)}: {way}", *others]))
    labels = [number[name] for name in names]
    count = max(labels) + 1
    return tuple(map(str, range(count))), labels, [f"labels come from {path}: {count} classes", *others]


# ---- Words ----------------------------------------------------------------------------------------------------------


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of others, in words: a, b, c and 9 more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _passed_over(names: list[str]) -> str:
    """Describe skipped files: 10 .txt, 2 without a suffix: notes.txt, README, more.txt and 9 more."""
    kinds = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in names)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    others = [name for name in names if os.path.splitext(name)[1].lower() in OTHERS]
    way = f"; save these pictures as JPEG or PNG to use them: {some(others)}" if others else ""
    return f"{counts}: {some(names)}{way}"
