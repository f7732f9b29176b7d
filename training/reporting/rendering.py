"""Pages from training/reporting/templates, in one style: of a run, of a study, and the tables of the benchmarks.

What is put into HTML is escaped; what is Markup already stays as it is.
"""

import base64
import functools
import io
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "templates"
PICTURE_BYTES = 90_000  # of an embedded grid, at most: 60 of them stay under 8 MB as base64
JPEG_SIDE, JPEG_QUALITIES = 660, (85, 70, 50, 30, 15)  # what a larger one is made to
PAGES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """The text of a template with these values."""
    return PAGES.get_template(template).render(values)


def embedded(path: str | Path, limit: int | None = PICTURE_BYTES) -> str:
    """A PNG as an address that holds it; where it has more bytes than the limit, a JPEG of it that has not."""
    path = Path(path)
    return _embedded(path, os.stat(path).st_mtime_ns, limit)


@functools.lru_cache(maxsize=64)
def _embedded(path: Path, changed: int, limit: int | None) -> str:
    """changed: when, so that a picture that is drawn anew is read anew."""
    content, kind = path.read_bytes(), "png"
    if limit and len(content) > limit:
        with Image.open(path) as picture:
            smaller = picture.convert("L" if picture.mode == "L" else "RGB")
        smaller.thumbnail((JPEG_SIDE, JPEG_SIDE))
        kind = "jpeg"
        for quality in JPEG_QUALITIES:
            buffer = io.BytesIO()
            smaller.save(buffer, "JPEG", quality=quality)
            content = buffer.getvalue()
            if len(content) <= limit:
                break
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
