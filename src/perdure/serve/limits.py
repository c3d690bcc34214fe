"""Limits of what one request may bring, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a request; beyond them it is refused whole.

    Attributes:
        body_bytes: bytes of a request.
        image_bytes: bytes of one image file.
        image_pixels: pixels of one image.
        predicted: images to predict or evaluate in one request.
        taught: images of a lesson that is uploaded.
        unpacked_bytes: bytes that a zip may unpack to.
        name_characters: characters of the name of a class.
        waiting: images that may wait for the backbone, those of all requests together.
        seconds: that a request may take, its upload included; a lesson goes on after its request.
    """

    body_bytes: int = 512_000_000
    image_bytes: int = 50_000_000
    image_pixels: int = 64_000_000
    predicted: int = 256
    taught: int = 5_000
    unpacked_bytes: int = 2_000_000_000
    name_characters: int = 200
    waiting: int = 2_048
    seconds: float = 300
