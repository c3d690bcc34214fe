"""Keys of a stream: which images, in which tasks, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from perdure.keys import Fraction, OpenFraction, Positive, key


@dataclass(frozen=True)
class StreamConfig:
    """What a stream is made of.

    Attributes:
        stream: where the images come from.
        path: folder, table or data set of one's own, or folder of a published data set's files.
        data: sets ``stream`` and ``path``: a folder, a table (CSV, TSV, Parquet), ``hf:NAME``, or
            the name of a stream.
        image_column: of a table or data set, where it cannot be told.
        label_column: their classes, likewise.
        domain_column: their domains, likewise.
        increment: what every task brings that is new: ``classes``, ``domains`` (the same classes in
            another domain) or ``classes+domains`` (new classes of one domain).
        domains: those wanted, in order; empty for all.
        tasks: ``Bm-Incn``, or task sizes as a list or joined by ``+``; not read where every domain
            is a task.
        class_order: ``nsp2``, ``pilot``, ``sorted`` or a file with a class per line.
        imbalance: how many times more training images the most frequent class keeps than the
            rarest, with an exponential fall between them; None keeps all.
        images_per_class: cap on training images per class; None for all.
        test_images_per_class: cap on test images per class; None for all.
        test_fraction: share held out for testing where a folder has no test split.
        validation_fraction: share of the training images held out for validation.
        skip_unreadable: leave out images that cannot be decoded instead of refusing the folder.
    """

    stream: str = key("digits", names_run=True)
    path: str | None = key(None, names_run=True, of_some=True)
    data: str | None = key(None)
    image_column: str | None = key(None, per_lesson=True, of_some=True)
    label_column: str | None = key(None, per_lesson=True, of_some=True)
    domain_column: str | None = key(None, of_some=True)
    increment: Literal["classes", "domains", "classes+domains"] = "classes"
    domains: tuple[str, ...] = ()
    tasks: str | tuple[Positive, ...] = key("B0-Inc2", names_run=True)
    class_order: str = "nsp2"
    imbalance: Annotated[float, Ge(1)] | None = None
    images_per_class: Positive | None = None
    test_images_per_class: Positive | None = None
    test_fraction: OpenFraction = key(0.2, of_some=True)
    validation_fraction: Fraction = key(0.0, per_lesson=True)
    skip_unreadable: bool = key(False, per_lesson=True)
