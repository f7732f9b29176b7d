"""STL-10: 100,000 images of 96x96 in one file of 2.6 GiB, brought to a run's size in parts and kept in the cache."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from settings.config import Config

from .cache import Made, Say, kept_or_made
from .images import RESIZE_CHUNK, Images, fit

SIDE = 96
FILES = {"train": ("unlabeled_X.bin", None), "test": ("test_X.bin", "test_y.bin")}


def load_stl10(config: Config, split: str, say: Say) -> Images:
    """The unlabelled images to train on, as the paper does, or the labelled test images, by torchvision's files.

    Raises what torchvision and the network do, or RuntimeError or ValueError, where the data are not there and whole.
    """
    from torchvision.datasets import STL10

    # Its constructor reads all into memory; what fetches and checks the files asks for the folder alone.
    published: Any = STL10.__new__(STL10)
    published.root = config.data_dir
    pixels, labels = FILES[split]
    folder = Path(config.data_dir) / STL10.base_folder
    files = [folder / name for name in (pixels, labels, STL10.class_names_file) if name]
    if not all(path.is_file() for path in files):
        published.download()
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]

    def make(path: Path) -> Made:
        if not published._check_integrity():
            raise RuntimeError("its files are not those that were published")
        raw = np.memmap(folder / pixels, np.uint8, "r").reshape(-1, 3, SIDE, SIDE).transpose(0, 1, 3, 2)
        with open(path, "wb") as file:
            for start in range(0, len(raw), RESIZE_CHUNK):
                part = torch.from_numpy(np.ascontiguousarray(raw[start : start + RESIZE_CHUNK]))
                file.write(fit(part, config.image_size, config.channels).numpy().data)
        found = np.fromfile(folder / labels, np.uint8).astype(int) - 1 if labels else np.full(len(raw), -1)
        if len(found) != len(raw):
            raise ValueError(f"{len(raw)} images but {len(found)} labels")
        classes = tuple((folder / STL10.class_names_file).read_text().splitlines())
        sizes = {name: [SIDE, SIDE] for name in ("smallest", "largest", "commonest")} | {"different": 1}
        enlarged = len(raw) if config.image_size > SIDE else 0
        return Made(found.tolist(), classes, sizes | {"enlarged": enlarged}, {}, ())

    count = (folder / pixels).stat().st_size // (3 * SIDE**2)
    return kept_or_made(config, f"stl10_{split}", {"files": stamps}, count, make, say)
