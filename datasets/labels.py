"""Classes: which there are and how often they come, the labels of samples, and the names that a person gives them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from settings.config import Config
from utils.errors import UserError

from .batches import derived_seed
from .images import Images
from .listing import empty_folders

LABEL_STREAM = 1  # beside a sample's z, which comes of the seed and its number alone
SHOWN = 20  # names in a message


class Classes(NamedTuple):
    """The classes of a training set: their names, and how many images each has. Labels are their numbers, from 0."""

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def labels(self, seed: int, start: int, count: int) -> Tensor:
        """The labels of the samples start, start + 1, ...: (count,) int64, each class as often as in training.

        That of sample i depends on the seed and i alone.
        """
        generator, total = torch.Generator(), sum(self.counts)
        seeds = (derived_seed(seed, i, LABEL_STREAM) for i in range(start, start + count))
        places = [torch.randint(total, (1,), generator=generator.manual_seed(seed)) for seed in seeds]
        return torch.bucketize(torch.cat(places), torch.tensor(self.counts).cumsum(0), right=True)

    def shown(self, count: int) -> Tensor:
        """The labels of at most `count` classes, evenly spaced, that stand for all in a picture."""
        total = len(self.names)
        return torch.arange(min(count, total)) * total // min(count, total)


def classes_of(config: Config, images: Images) -> Classes | None:
    """The Classes of a training split where a run is conditional; None where it is not. UserError without labels."""
    if config.conditional == "none":
        return None
    what = f"--conditional {config.conditional} needs the class of every training image"
    if len(images.classes) < 2 or bool((images.labels < 0).any()):
        raise UserError(f"{what}, and {_unlabelled(config, images)}")
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    few = {name: count for name, count in zip(images.classes, counts) if count < 2}
    if config.dataset == "folder":
        few |= dict.fromkeys(sorted(empty_folders(config.data_dir) - set(images.classes)), 0)
    if few:
        told = ", ".join(f"{name} has {count or 'none'}" for name, count in list(few.items())[:SHOWN])
        more = "" if config.num_images is None else "raise --num_images, "
        raise UserError(f"each class needs at least 2 images, and {told}: {more}add some, or remove these classes")
    return Classes(tuple(images.classes), tuple(counts))


def _unlabelled(config: Config, images: Images) -> str:
    """Why images have no labels, in words."""
    if config.dataset != "folder":
        return f"those of {config.dataset} have none"
    what = f"{config.data_dir} has no classes, or has images beside its class folders"
    if len(images.classes) == 1:
        what = f"{config.data_dir} has one class alone, {images.classes[0]}"
    elif images.classes:
        what = f"some images of {config.data_dir} have none"
    return f"{what}: put each image into the folder of its class"


def named(classes: Sequence[str], words: Sequence[str]) -> list[int]:
    """The labels that words name: a class's name, in any case, a word of it, or its number. UserError for what is none.

    What could mean two of them is refused, as a number that is also another class's name; name:7 and number:7 are
    without doubt.
    """
    lower = [name.lower() for name in classes]
    parts = [set(re.split(r"[^\w]+", name)) for name in lower]
    found = []
    for asked in words:
        kind, _, word = asked.partition(":") if asked.startswith(("name:", "number:")) else ("", "", asked)
        by_name = [label for label, name in enumerate(lower) if name == word.lower() and kind != "number"]
        if not kind and not by_name and not word.isdecimal():  # "seven" of "7 - seven"
            by_name = [label for label, its in enumerate(parts) if word.lower() in its]
        exact = [label for label in by_name if classes[label] == word]
        is_number = kind != "name" and word.isdecimal() and len(word) < 10
        by_number = [int(word)] if is_number and int(word) < len(classes) else []
        candidates = sorted({*(exact or by_name), *by_number})
        if len(candidates) > 1:
            told = " or ".join(f"number {label}, {classes[label]}" for label in candidates)
            sure = "say number:K, or name:NAME in the class's own letters"
            raise UserError(f"--labels {asked} is ambiguous: it may be {told}; {sure}")
        if not candidates:
            names = ", ".join(classes[:SHOWN]) + (f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else "")
            raise UserError(
                f"--labels {asked}: there is no such class. The classes are {names}; or by number, 0 to "
                f"{len(classes) - 1}"
            )
        found.append(candidates[0])
    return found
