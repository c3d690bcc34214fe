"""Streams: data sets cut into tasks, and batches of their images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.streams.catalog import SOURCES, TRANSFORMS
    from perdure.streams.config import StreamConfig
    from perdure.streams.fetch.published import PUBLISHED, PublishedData
    from perdure.streams.images.sets import ArrayImages, FileImages, ImageSet
    from perdure.streams.loader import Batch, batch_count, batch_order, batches
    from perdure.streams.orders import class_order
    from perdure.streams.sources.base import Domains, Source, load_source
    from perdure.streams.sources.resolve import resolve
    from perdure.streams.stream import Stream, Subset, TaskData, build_stream
    from perdure.streams.tasks import task_sizes
    from perdure.streams.transforms import Transform, augment, build_transform
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "PUBLISHED",
    "SOURCES",
    "TRANSFORMS",
    "ArrayImages",
    "Batch",
    "Domains",
    "FileImages",
    "ImageSet",
    "PublishedData",
    "Source",
    "Stream",
    "StreamConfig",
    "Subset",
    "TaskData",
    "Transform",
    "augment",
    "batch_count",
    "batch_order",
    "batches",
    "build_stream",
    "build_transform",
    "class_order",
    "load_source",
    "resolve",
    "task_sizes",
]
