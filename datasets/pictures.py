"""A user's own pictures, a folder or .zip archive of them, as Images: listed, decoded once, and what was found said."""

from collections import Counter
from pathlib import Path
from typing import Any

from settings.config import Config
from utils.errors import UserError, refuse_if

from .cache import Made, Say, digest_of, kept_or_made
from .decode import How
from .images import Images
from .listing import Listing, counted, list_split
from .workers import Decoded, decode_all

SHOWN = 10  # bad pictures that a message lists


def load_pictures(config: Config, split: str, say: Say) -> Images:
    """The pictures of a split of config.data_dir, decoded now or before. Says what was taken and how.

    UserError where there are none, or some cannot be read and are not to be skipped.
    """
    listing = list_split(config.data_dir, split)
    how = How(config.image_size, config.channels, config.background, config.crop)
    facts = {"files": listing.digest, "background": list(how.background), "crop": how.crop}

    def make(path: Path) -> Made:
        found = decode_all(listing.root, listing.names, how, path)
        refuse_if(list_split(config.data_dir, split).digest != listing.digest, _changed(config))
        if not found.num:
            raise UserError(cannot_read(found.bad, listing.root, len(listing.names)))
        return _made(found, listing, how)

    images = kept_or_made(config, _name(config, listing, how), facts, len(listing.names), make, say)
    assert images.origin is not None
    for note in images.origin.notes:
        say(note)
    if skipped := images.origin.skipped:
        if config.bad_images == "stop":
            way = ", or leave such out with --bad_images skip"
            raise UserError(cannot_read(skipped, listing.root, len(listing.names), way))
        say(f"{counted(list(skipped), 'picture')} of {len(listing.names):,} cannot be read and {_are(skipped)} skipped")
    return images


def _name(config: Config, listing: Listing, how: How) -> str:
    """The name of the cache's file: what the same pictures in the same form have in common, however they change."""
    data = Path(config.data_dir).resolve()
    # A cache beside the data may move with them; one of --cache_dir may be that of others too.
    beside = listing.root.relative_to(config.data_dir)
    place = data if config.cache_dir else beside
    return f"images_{digest_of(place, beside, listing.prefix, how.background, how.crop)}"


def _made(found: Decoded, listing: Listing, how: How) -> Made:
    """What the cache keeps beside the pixels."""
    labels = [label for name, label in zip(listing.names, listing.labels) if name not in found.bad]
    notes = list(listing.notes)
    if found.transparent:
        colour = "white" if how.background == (255, 255, 255) else "{},{},{}".format(*how.background)
        notes.append(f"{found.transparent:,} of {found.num:,} pictures are partly transparent, and laid on {colour}")
    if found.own_range:
        notes.append(
            f"{found.own_range:,} of {found.num:,} pictures hold 32-bit or floating-point numbers, each scaled by "
            "its own smallest and largest"
        )
    return Made(labels, listing.classes, sizes_of(found.sizes, how.image_size), found.bad, tuple(notes))


def sizes_of(sizes: Counter[tuple[int, int]], image_size: int) -> dict[str, Any]:
    """The smallest, largest and commonest [width, height], how many different ones, and how many were enlarged."""
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    enlarged = sum(count for size, count in sizes.items() if min(size) < image_size)
    return {
        "smallest": list(by_area[0]),
        "largest": list(by_area[-1]),
        "commonest": list(sizes.most_common(1)[0][0]),
        "different": len(sizes),
        "enlarged": enlarged,
    }


def cannot_read(bad: dict[str, str], root: Path, count: int, way: str = "") -> str:
    """A message that lists bad pictures, of `count`, with their reasons: some, and then how many more.

    way: another way out than to remove or replace them.
    """
    if len(bad) == 1:
        ((name, reason),) = bad.items()
        return f"cannot read the image {root / name}: {reason}. Remove or replace it{way}"
    lines = [f"\n  {root / name}: {reason}" for name, reason in list(bad.items())[:SHOWN]]
    more = f"\n  and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    first = f"cannot read {len(bad):,} of the {count:,} images"
    return f"{first}. Remove or replace them{way}:{''.join(lines)}{more}"


def _changed(config: Config) -> str:
    return f"{config.data_dir} changed while its images were decoded: start again when nothing writes into it any more"


def _are(items: dict[str, str]) -> str:
    return "is" if len(items) == 1 else "are"
