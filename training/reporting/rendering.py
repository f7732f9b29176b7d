"""Render the templates of this folder: pages of runs and studies, and tables of the benchmarks.

Values are escaped in HTML, unless they are Markup already.
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
PICTURE_BYTES = 90_000  # at most, of an embedded grid: 60 of them stay under 8 MB as base64
JPEG_SIDE, JPEG_QUALITIES = 660, (85, 70, 50, 30, 15)  # for larger pictures; qualities are tried in this order
PAGES = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Render a template with these values."""
    return PAGES.get_template(template).render(values)


def embedded(path: str | Path, limit: int | None = PICTURE_BYTES) -> str:
    """A PNG or GIF file as a data URL; if it has more bytes than the limit, as a smaller JPEG."""
    path = Path(path)
    return _embedded(path, os.stat(path).st_mtime_ns, limit)


@functools.lru_cache(maxsize=64)
def _embedded(path: Path, changed: int, limit: int | None) -> str:
    """embedded(), cached. changed: the file's time, so that a new picture is read again."""
    content, kind = path.read_bytes(), path.suffix[1:]
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
