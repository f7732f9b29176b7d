"""From a name or a folder to batches on the device: where images come from, how they are read, and in which order.

Images are (N, C, H, W) uint8 in memory, at the size and with the channels of the run.
"""

from .batches import Batches, derived_seed, steps_of
from .images import Images, quantise, to_float
from .labels import Classes, classes_of
from .sources import has_test_split, load_split

__all__ = [
    "Batches",
    "Classes",
    "Images",
    "classes_of",
    "derived_seed",
    "has_test_split",
    "load_split",
    "quantise",
    "steps_of",
    "to_float",
]
