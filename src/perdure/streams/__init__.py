"""Streams: data sets cut into tasks, and batches of their images."""

from perdure.streams.config import StreamConfig
from perdure.streams.fetch.published import BENCHMARKS, Benchmark
from perdure.streams.images.sets import ArrayImages, FileImages, ImageSet
from perdure.streams.loader import Batch, batch_count, batch_order, batches
from perdure.streams.sources import (
    cifar,
    cub,
    digits,
    domainnet,
    fashion,
    folder,
    huggingface,
    imagenet,
    synthetic,
    table,
)
from perdure.streams.sources.base import SOURCES, Domains, Source, load_source
from perdure.streams.sources.resolve import resolve
from perdure.streams.stream import Stream, Subset, TaskData, build_stream
from perdure.streams.tasks import class_order, task_sizes
from perdure.streams.transforms import TRANSFORMS, Transform, augment, build_transform

__all__ = [
    "BENCHMARKS",
    "SOURCES",
    "TRANSFORMS",
    "ArrayImages",
    "Batch",
    "Benchmark",
    "Domains",
    "FileImages",
    "ImageSet",
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
    "cifar",
    "class_order",
    "cub",
    "digits",
    "domainnet",
    "fashion",
    "folder",
    "huggingface",
    "imagenet",
    "load_source",
    "resolve",
    "synthetic",
    "table",
    "task_sizes",
]
