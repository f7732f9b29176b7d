"""Classes: names, frequencies, labels of samples, and the labels that a user's words stand for."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from settings.config import Config
from utils.errors import UserError

from .batches import derived_seed
from .images import Images, spaced
from .listing import WHOLE, empty_folders, some

LABEL_STREAM = 1  # separates a sample's label from its z, which the seed and its number determine
SHOWN = 20  # names in a message


class Classes(NamedTuple):
    """The classes of a training set: their names and numbers of images. A label is an index into them."""

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def labels(self, seed: int, start: int, count: int) -> Tensor:
        """Draw the labels of samples start, start + 1, ...: (count,) int64, with the class frequencies of training.

        The label of sample i depends only on the seed and i.
        """
        generator, total = torch.Generator(), sum(self.counts)
        seeds = (derived_seed(seed, i, LABEL_STREAM) for i in range(start, start + count))
        places = [torch.randint(total, (1,), generator=generator.manual_seed(seed)) for seed in seeds]
        return torch.bucketize(torch.cat(places), torch.tensor(self.counts).cumsum(0), right=True)

    def shown(self, count: int) -> Tensor:
        """The labels of at most `count` classes, evenly spaced, to show in a picture."""
        return spaced(len(self.names), count)


def classes_of(config: Config, images: Images) -> Classes | None:
    """The Classes of a training split, or None if the run is unconditional. Raises UserError if labels are missing."""
    if config.conditional == "none":
        return None
    what = f"--conditional {config.conditional} needs the class of every training image of {config.dataset}"
    if len(images.classes) < 2 or bool((images.labels < 0).any()):
        told = f", but it has {some(images.classes)}" if images.classes else ""
        raise UserError(
            f"{what}, and at least two classes{told}. In a folder of images, put every image into the folder of its "
            "class"
        )
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    few = {name: count for name, count in zip(images.classes, counts) if count < 2}
    if config.dataset == "folder":
        few |= dict.fromkeys(sorted(empty_folders(config.data_dir) - set(images.classes)), 0)
    if few:
        told = some([f"{name} has {count or 'no images'}" for name, count in few.items()], SHOWN)
        more = "number the labels of dataset.json from 0, " if images.classes[0] == "0" and not counts[0] else ""
        more = more if config.num_images is None else "raise --num_images, "
        raise UserError(f"each class needs at least 2 images, but {told}: {more}add images, or remove these classes")
    return Classes(tuple(images.classes), tuple(counts))


def named(classes: Sequence[str], words: Iterable[str]) -> list[int]:
    """The labels that words stand for. Raises UserError if a word matches no class, or several."""
    return [_label(classes, word) for word in words]


def _label(classes: Sequence[str], word: str) -> int:
    """Find a class by exact name, else by name in any case, else by number or word of its name, if these agree.

    If all names are numbers, a number means a name, not an index.
    """
    lower, numbers = [name.lower() for name in classes], all(map(WHOLE, classes))
    values = map(int, classes) if numbers else range(len(classes))
    parts = [re.split(r"\W+", name) for name in lower]  # "seven" of "7 - seven"
    ways = (
        [label for label, name in enumerate(classes) if name == word],
        [label for label, name in enumerate(lower) if name == word.lower()],
        [i for i, value in enumerate(values) if (WHOLE(word) and value == int(word)) or word.lower() in parts[i]],
    )
    found = next(filter(None, ways), [])
    if not found:
        way = "" if numbers else f"; or by number, 0 to {len(classes) - 1}"
        raise UserError(f"--labels {word}: no such class. The classes are {some(classes, SHOWN)}{way}")
    if len(found) > 1:
        told = " or ".join(f"number {label}, {classes[label]}" for label in found)
        raise UserError(f"--labels {word} is ambiguous: it could be {told}. Type the whole name")
    return found[0]
