"""Rendering of figures: PNG, and SVG that stands inside a page and takes the page's colours."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from perdure.atomic import atomic_write
from perdure.reports.figures.axes import COLOURS, FAINT, INK, PAPER, SOFT

PROPERTIES = {
    **{f"--curve-{place}": colour for place, colour in enumerate(COLOURS)},
    "--ink": INK,
    "--soft": SOFT,
    "--faint": FAINT,
    "--paper": PAPER,
}
"""CSS properties that a page may set, with the colours of a light page."""

_NAMES = {colour.lower(): f"var({name})" for name, colour in PROPERTIES.items()}
_DOTS = 200  # the cells of heat maps are an image also within SVG
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_STYLE = re.compile(r'style="[^"]*"')
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")
_UNPRINTABLE = re.compile(r"[^\S ]+|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def write_png(figure: Figure, path: Path | str) -> None:
    """Write the whole figure as a PNG, which replaces what was there as a whole.

    Raises:
        OutputError: the file cannot be written.
    """
    content = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png")
    atomic_write(path, content.getvalue())


def as_png(figure: Figure) -> bytes:
    """Return the figure as a PNG on white, cut to what is drawn."""
    FigureCanvasAgg(figure)
    return _save(figure, "png")


def as_svg(figure: Figure, name: str) -> str:
    """Return the figure as an ``<svg>`` element without background.

    Colours (`PROPERTIES`) and font (``--font``) are the page's, nothing is referred to outside, and
    texts are escaped. The same figure gives the same text.

    Args:
        figure: without names that matplotlib would read as a formula.
        name: unique in the page; keeps its identifiers apart from those of other figures.
    """
    FigureCanvasSVG(figure)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        text = _save(figure, "svg").decode()
    text = _METADATA.sub("", text[text.index("<svg") :])
    # Only what is referred to keeps an identifier: groups are numbered alike in every figure.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return _STYLE.sub(lambda style: _with_properties(style[0]), text)


def printable(text: str, longest: int = 40) -> str:
    """Return the text on one line, without what cannot be shown, cut where it is too long."""
    shown = _UNPRINTABLE.sub(" ", text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _save(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    about = {"Date": None, "Creator": None} if kind == "svg" else {}
    with warnings.catch_warnings():
        # A letter that our font lacks is shown by the reader's font, and as a box in a PNG.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(
            content,
            format=kind,
            dpi=_DOTS,
            transparent=kind == "svg",
            bbox_inches="tight",
            metadata=about,
        )
    # The other kind is laid out alike: once is enough.
    figure.set_layout_engine("none")
    return content.getvalue()


def _with_properties(style: str) -> str:
    named = _COLOUR.sub(lambda colour: _NAMES.get(colour[0], colour[0]), style)
    return _FONT.sub("var(--font)", named)
