"""The real images that samples are scored against: a data set's, or those of a folder in its place."""

import dataclasses
import functools

import torch

from datasets import Images, has_test_split, load_split
from settings.config import Config
from utils.distributed import rank_zero_first
from utils.errors import UserError

from .inputs.features import Extractor, Say
from .inputs.reference import Reference, load_reference
from .scores.metrics import MIN_IMAGES


class Real:
    """The splits of real images, and their References, each loaded when it is asked for.

    config: of the data; train: its training split, as loaded already. folder: whose images take the data set's place.
    """

    def __init__(
        self, config: Config, train: Images | None, device: torch.device, say: Say, folder: str | None = None
    ) -> None:
        self.device, self.say, self.folder = device, say, folder
        self.config = dataclasses.replace(config, dataset="folder", data_dir=folder) if folder else config
        self.splits: dict[str, Images | None] = {"train": load_split(self.config) if folder else train}
        if has_test_split(self.config):
            self.splits["test"] = None
        self.references: dict[str, Reference | None] = {}
        self.sha256 = functools.cache(lambda split: self.images(split).sha256())

    def images(self, split: str) -> Images:
        """The images of a split. UserError if the data have no such split, or too few images."""
        if split not in self.splits:
            raise UserError(
                f"{self.config.data_dir} has no test images: a folder's splits are its subfolders train and test"
            )
        found = self.splits[split]
        if found is None:
            with rank_zero_first():
                found = self.splits[split] = load_split(self.config, split)
        if len(found.images) < MIN_IMAGES:
            raise UserError(f"scores need {MIN_IMAGES} real images or more; the {split} split has fewer")
        return found

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self.images(split).images)

    def reference(self, split: str, extractor: Extractor) -> Reference | None:
        """The Reference of a split, from memory, its cache or made now; None on ranks other than 0."""
        if split not in self.references:
            images = self.images(split)
            self.references[split] = load_reference(self.config, split, images, extractor, self.device, self.say)
        return self.references[split]

    def compared(self, extractor: Extractor) -> list[Reference | None]:
        """What samples are compared with: the References of training images and, if there are enough, of test ones."""
        if "test" in self.splits:
            try:
                self.images("test")
            except UserError as error:
                self.say(f"samples are not compared with test images: {error}")
                del self.splits["test"]
        return [self.reference(split, extractor) for split in self.splits]
