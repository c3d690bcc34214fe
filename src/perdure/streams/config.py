"""Keys of a stream: which images, in which tasks, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import FiniteFloat

from perdure.errors import ConfigError
from perdure.keys import Fraction, OpenFraction, Positive, key

Increment = Literal["classes", "domains", "classes+domains"]
HUB = "hf"
"""What ``data`` begins with, before a colon, for a data set of Hugging Face."""


@dataclass(frozen=True)
class StreamConfig:
    """Keys of a stream: data set, tasks, class order, held-out images.

    Attributes:
        data: the images: a known data set's name, as ``cifar100``; a folder with a folder per
            class; a table (CSV, TSV, Parquet) of path and label; ``shards:FOLDER``; ``hf:NAME``; or
            ``cifar100:FOLDER`` for a known data set whose files lie elsewhere.
        image_column: column of images in a table or data set; guessed where None.
        label_column: column of classes in a table or data set; guessed where None.
        domain_column: column of domains in a table or data set; guessed where None.
        increment: what every task brings that is new: ``classes``, ``domains`` (the same classes in
            another domain) or ``classes+domains`` (new classes of one domain).
        domains: domains to use, in order; empty for all.
        tasks: classes per task, as ``Bm-Incn``, as a list or joined by ``+``; not read where every
            domain is a task.
        class_order: order of the classes: ``nsp2``, ``pilot``, ``sorted`` or a file, a class per
            line.
        imbalance: training images of the most frequent class over those of the rarest, with an
            exponential fall between them; None keeps all.
        images_per_class: cap on training images per class; None for all.
        test_images_per_class: cap on test images per class; None for all.
        test_fraction: share held out for testing where a folder or table has no test split.
        validation_fraction: share of the training images held out for validation.
        skip_unreadable: leave out images that cannot be decoded instead of refusing the data set.

    Types and ranges are checked where keys are read, by `make_config`; built directly, a part checks
    only how its keys go together.

    Raises:
        ConfigError: a column of domains is named, and none are asked for.
    """

    data: str = key("digits", names_run=True)
    image_column: str | None = key(None, per_lesson=True, of_some=True)
    label_column: str | None = key(None, per_lesson=True, of_some=True)
    domain_column: str | None = key(None, of_some=True)
    increment: Increment = "classes"
    domains: tuple[str, ...] = ()
    tasks: str | tuple[Positive, ...] = key("B0-Inc2", names_run=True)
    class_order: str = "nsp2"
    imbalance: Annotated[FiniteFloat, Ge(1)] | None = None
    images_per_class: Positive | None = None
    test_images_per_class: Positive | None = None
    test_fraction: OpenFraction = key(0.2, of_some=True)
    validation_fraction: Fraction = key(0.0, per_lesson=True)
    skip_unreadable: bool = key(False, per_lesson=True)

    def __post_init__(self) -> None:
        if self.domain_column is not None and not self.over_domains:
            raise ConfigError(
                f"domain_column={self.domain_column} has no use: tasks are formed by classes alone. "
                "Add increment=domains or increment=classes+domains, or leave domain_column out."
            )

    @property
    def source(self) -> str:
        """Which source loads the images: a name of ``SOURCES``."""
        return split_data(self.data)[0]

    @property
    def place(self) -> str | None:
        """Where they are: a file, a folder or a name, as far as ``data`` says."""
        return split_data(self.data)[1]

    @property
    def over_domains(self) -> bool:
        """Whether the domain of every image is asked for."""
        return self.increment != "classes"


def refuse_test_fraction(config: StreamConfig, why: str) -> None:
    """Refuse ``test_fraction`` where the data say which images are for testing.

    Raises:
        ConfigError: it differs from its default.
    """
    if config.test_fraction != StreamConfig.test_fraction:
        raise ConfigError(f"test_fraction={config.test_fraction} has no use: {why}")


def split_data(data: str) -> tuple[str, str | None]:
    """Return the source and the place that ``data`` names in full.

    Examples:
        >>> split_data("digits"), split_data("folder:photos"), split_data("hf:user/name")
        (('digits', None), ('folder', 'photos'), ('huggingface', 'user/name'))
    """
    source, _, place = data.partition(":")
    return ("huggingface" if source == HUB else source), (place or None)


def join_data(source: str, place: str | None) -> str:
    """Return what ``data`` says of a source and a place, in full; the inverse of `split_data`."""
    source = HUB if source == "huggingface" and place is not None else source
    return source if place is None else f"{source}:{place}"
