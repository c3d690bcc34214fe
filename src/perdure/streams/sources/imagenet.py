"""ImageNet-R and ImageNet-A: 200 classes of ImageNet each, drawn and natural but hard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from perdure.backbones.synsets import words
from perdure.streams.catalog import SOURCES
from perdure.streams.config import StreamConfig
from perdure.streams.fetch.published import PUBLISHED
from perdure.streams.images.file_sets import file_source
from perdure.streams.images.left_out import LeftOut
from perdure.streams.sources.base import Source, refuse_options
from perdure.streams.sources.folder import class_files, hold_out, labelled
from perdure.streams.sources.splits import read_split, split_files

TEST_FRACTION = 0.2


@SOURCES.register("imagenet_r")
def load_imagenet_r(config: StreamConfig, seed: int) -> Source:
    """Load 24,000 training and 6,000 test renditions of 200 classes of ImageNet.

    The split is that of VPT-NSP²'s released program. Labels follow the synsets' numbers.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the images are not at hand, or some of them are missing.
    """
    refuse_options(config, "place")
    root = PUBLISHED["imagenet_r"].root(config.place) / "imagenet-r"
    lines = {split: read_split(f"imagenet_r_{split}") for split in ("train", "val")}
    synsets = sorted({line.partition("/")[0] for line in lines["train"]})
    label_of = {synset: label for label, synset in enumerate(synsets)}
    train, test = (
        split_files("imagenet_r", root, [(line, label_of[line.partition("/")[0]]) for line in part])
        for part in lines.values()
    )
    return file_source(
        "imagenet_r", class_names(synsets), train, test, config, seed, published=True
    )


@SOURCES.register("imagenet_a")
def load_imagenet_a(config: StreamConfig, seed: int) -> Source:
    """Load 7,500 photographs that ResNet-50 gets wrong, of 200 classes of ImageNet.

    A fifth of each class is for testing: which images, is decided by the names of synset and file
    alone. Labels follow the synsets' numbers.

    Raises:
        ConfigError: a key that means nothing here.
        StreamError: the images are not at hand, or a class has none.
    """
    refuse_options(config, "place")
    root = PUBLISHED["imagenet_a"].root(config.place) / "imagenet-a"
    files = class_files(root, LeftOut())
    train, test = hold_out(files, TEST_FRACTION)
    names = class_names(tuple(files))
    return file_source(
        "imagenet_a", names, labelled(train), labelled(test), config, seed, published=True
    )


def class_names(synsets: Sequence[str]) -> list[str]:
    """Return class names: a synset's usual word, with its number where two share it.

    Examples:
        >>> class_names(["n02129165", "n02012849", "n03126707"])
        ['lion', 'crane (n02012849)', 'crane (n03126707)']
    """
    usual = [words(synset).partition(",")[0] for synset in synsets]
    times = Counter(usual)
    return [
        word if times[word] == 1 else f"{word} ({synset})"
        for word, synset in zip(usual, synsets, strict=True)
    ]
