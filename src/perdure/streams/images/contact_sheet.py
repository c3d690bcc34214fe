"""Contact sheet: many images on one page, each with a caption."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from perdure.atomic import atomic_write
from perdure.wording import printable

SIDE, GAP, LINE, COLUMNS = 160, 8, 15, 6
"""Pixels of an image, around it and of a line of its caption; images in a row."""
MOST = 300
"""Images on a sheet."""
_LETTERS = 24


def write_contact_sheet(path: Path, pictures: Sequence[tuple[Image.Image, Sequence[str]]]) -> None:
    """Write images with the lines of their captions as one picture, row by row.

    Args:
        path: the file, of a suffix that Pillow can write.
        pictures: upright RGB images and lines; at most `MOST` are shown.

    Raises:
        OutputError: the file cannot be written.
    """
    shown = pictures[:MOST]
    lines = max((len(caption) for _, caption in shown), default=0)
    width, height = SIDE + GAP, SIDE + GAP + LINE * lines
    rows = -(-len(shown) // COLUMNS) or 1
    sheet = Image.new("RGB", (GAP + COLUMNS * width, GAP + rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE - 4)
    for place, (image, caption) in enumerate(shown):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        small = ImageOps.contain(image, (SIDE, SIDE))
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
        for number, line in enumerate(caption):
            text = printable(line)[:_LETTERS]
            draw.text((left, top + SIDE + LINE * number), text, "black", font)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    atomic_write(path, content.getvalue())
