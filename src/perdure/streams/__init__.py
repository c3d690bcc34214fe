"""Streams: data sets cut into tasks, and batches of their images."""

from perdure.streams.fetch.published import BENCHMARKS, Benchmark
from perdure.streams.images.sets import ArrayImages, FileImages, ImageSet
from perdure.streams.loader import Batch, batch_count, batch_order, batches
from perdure.streams.sources import (
    cifar,
    cub,
    domainnet,
    fashion,
    folder,
    huggingface,
    imagenet,
    synthetic,
    table,
)
from perdure.streams.sources.base import SOURCES, Domains, Source, SourceOptions, load_source
from perdure.streams.sources.resolve import source_of
from perdure.streams.stream import Stream, StreamOptions, Subset, TaskData, build_stream
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
    "SourceOptions",
    "Stream",
    "StreamOptions",
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
    "domainnet",
    "fashion",
    "folder",
    "huggingface",
    "imagenet",
    "load_source",
    "source_of",
    "synthetic",
    "table",
    "task_sizes",
]
