"""The picture of docs/few_images.md: each transform of --augment on real images, drawn with seed 0.

`python benchmarks/augmentation_pictures.py [FOLDER] [--data_dir DIR]` writes it to docs/ or to FOLDER. It shows
Fashion-MNIST if DIR has it, otherwise scikit-learn's digits. Takes seconds on one CPU thread.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from datasets import load_split
from models.augmentation import AUGMENTATIONS, TRANSFORMS, augment, draw
from settings.layers import resolve
from utils.plots import pyplot

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS, SHADES = 10, 256


def rows(images):
    """The rows of the picture with their names: images (n, 1, H, W) in [-1, 1], then each transform of them."""
    drawn = draw(len(images), torch.ones(()), torch.Generator().manual_seed(0))
    yield "real", images
    for transform in TRANSFORMS:
        if transform.__name__ != "saturation":  # which leaves grey images as they are
            yield transform.__name__, transform(images, drawn[:, TRANSFORMS.index(transform), 1:])
    yield "all", augment(images, tuple(AUGMENTATIONS), drawn)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS)
    parser.add_argument("--data_dir")
    options = parser.parse_args()
    flags = {"dataset": "fashion_mnist", "data_dir": options.data_dir} if options.data_dir else {"dataset": "digits"}
    images = load_split(resolve(flags)[0]).images[:COLUMNS].float() / (SHADES - 1) * 2 - 1
    shown = list(rows(images))
    figure = pyplot().Figure(figsize=(8, 0.75 * len(shown)))
    figure.subplots_adjust(left=0.13, right=0.99, top=0.98, bottom=0.02)
    for axis, (name, row) in zip(figure.subplots(len(shown), 1), shown):
        axis.imshow(torch.cat(list(row[:, 0]), dim=1), cmap="gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(options.folder / "augmentation.png", dpi=90)


if __name__ == "__main__":
    main()
