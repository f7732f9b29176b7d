"""From a data set or folder to batches on the device: loading, decoding, caching and shuffling.

Images are (N, C, H, W) uint8 with the run's size and channels, in memory or mapped from a file.
"""

from .batches import Batches, derived_seed, fits, steps_of
from .cache import cache_folder
from .images import Images, first_of, quantise, spaced, to_float, trained_on
from .labels import Classes, classes_of
from .sources import check_place, has_test_split, load_split

__all__ = [
    "Batches",
    "Classes",
    "Images",
    "cache_folder",
    "check_place",
    "classes_of",
    "derived_seed",
    "first_of",
    "fits",
    "has_test_split",
    "load_split",
    "quantise",
    "spaced",
    "steps_of",
    "to_float",
    "trained_on",
]
