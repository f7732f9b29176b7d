"""Load a user's own pictures, from a folder or .zip archive, as Images."""

import hashlib
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import IO, Any

from settings.config import Config
from utils.errors import refuse_if

from .cache import Made, Say, kept_or_made
from .decode import How
from .images import Images
from .listing import Listing, list_split
from .workers import Decoded, decode_all

SHOWN = 10  # bad pictures in a message, at most


def load_pictures(config: Config, split: str, say: Say) -> Images:
    """Load the pictures of a split of config.data_dir. Reports which ones are used, and how.

    Raises UserError if there are no pictures, or if some cannot be read and --bad_images is stop.
    """
    listing = list_split(config.data_dir, split, config.class_order)
    how = How(config.image_size, config.channels, config.background, config.crop)
    facts = {"files": listing.digest, "background": list(how.background), "crop": how.crop}

    def make(file: IO[bytes]) -> Made:
        found = decode_all(listing.root, listing.names, how, file)
        changed = list_split(config.data_dir, split, config.class_order).digest != listing.digest
        refuse_if(changed, f"{config.data_dir} changed while its images were decoded: start again when it is at rest")
        refuse_if(not found.count, cannot_read(found.bad, listing.root, len(listing.names)))
        return _made(found, listing, how)

    images = kept_or_made(config, _name(config, listing, how), facts, make, say)
    assert images.origin is not None
    notes = tuple(dict.fromkeys([*listing.notes, *images.origin.notes]))  # the first can change alone
    for note in notes:
        say(note)
    if skipped := images.origin.skipped:
        way = ", or skip them with --bad_images skip"
        refuse_if(config.bad_images == "stop", cannot_read(skipped, listing.root, len(listing.names), way))
        say(f"skipped {len(skipped):,} of {len(listing.names):,} pictures, which cannot be read")
    return images._replace(origin=images.origin._replace(notes=notes))


def _name(config: Config, listing: Listing, how: How) -> str:
    """The name of the cache file. It depends on the place and the decoding, not on the pictures."""
    data = Path(config.data_dir).resolve()
    # A cache next to the data may move with them; --cache_dir may be shared by data sets.
    beside = listing.root.relative_to(config.data_dir)
    facts = [data if config.cache_dir else beside, beside, listing.prefix, how.background, how.crop]
    digest = hashlib.sha256(repr([*map(str, facts)]).encode("utf-8", "surrogateescape")).hexdigest()
    return f"images_{digest[:12]}"


def _made(found: Decoded, listing: Listing, how: How) -> Made:
    """The facts that the cache keeps about the pixels."""
    labels = [label for name, label in zip(listing.names, listing.labels) if name not in found.bad]
    notes = []
    if transparent := sum(count for facts, count in found.seen.items() if facts.transparent):
        colour = ",".join(map(str, how.background))
        notes.append(f"{transparent:,} of {found.count:,} pictures are partly transparent; laid on {colour}")
    sizes = Counter(facts.size for facts in found.seen.elements())
    lost = [1 - min(size) / max(size) for size in sizes.elements() if how.crop == "center" and size[0] != size[1]]
    if lost and (median := f"{statistics.median(lost):.0%}") != "0%":
        told = f"{len(lost):,} of {found.count:,} pictures; the median loss is {median} of a picture"
        notes.append(f"cropped to squares: {told} (--crop none keeps all of it, distorted)")
    return Made(labels, listing.classes, _sizes(sizes, how.image_size), found.bad, tuple(notes))


def _sizes(sizes: Counter[tuple[int, int]], image_size: int) -> dict[str, Any]:
    """The smallest, largest and commonest [width, height]. Numbers of sizes and enlarged pictures."""
    by_area = sorted(sizes, key=math.prod)
    return {
        "smallest": list(by_area[0]),
        "largest": list(by_area[-1]),
        "commonest": list(sizes.most_common(1)[0][0]),
        "different": len(sizes),
        "enlarged": sum(count for size, count in sizes.items() if min(size) < image_size),
    }


def cannot_read(bad: dict[str, str], root: Path, count: int, way: str = "") -> str:
    """A message about the bad ones of `count` pictures. Lists the first with their reasons.

    way: advice in addition to removing or replacing them.
    """
    lines = [f"\n  {root / name}: {reason}" for name, reason in list(bad.items())[:SHOWN]]
    more = f"\n  and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    return f"cannot read {len(bad):,} of the {count:,} images. Remove or replace them{way}:{''.join(lines)}{more}"
