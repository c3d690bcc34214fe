"""DomainNet: the 200 classes of VPT-NSP²'s split, each in one of six domains."""

from __future__ import annotations

from perdure.streams.benchmarks import BENCHMARKS
from perdure.streams.files import file_source
from perdure.streams.sources import SOURCES, Source, SourceOptions, refuse_options
from perdure.streams.splits import read_split, split_files


@SOURCES.register("domainnet200")
def load_domainnet200(options: SourceOptions) -> Source:
    """Load 47,532 training and 20,450 test images of 200 of DomainNet's 345 classes.

    The split and its labels are those of VPT-NSP²'s released program: every class is shown in one
    domain only (40 each in real, sketch, painting and quickdraw, 20 each in clipart and
    infograph). The domain of an image is the folder two above its file.

    Raises:
        ConfigError: an option that means nothing here.
        StreamError: the images are not at hand, or some of them are missing.
    """
    refuse_options("domainnet200", options, "path")
    root = BENCHMARKS["domainnet200"].root(options.path)
    listed = {
        split: [(path, int(label)) for path, _, label in (line.rpartition(" ") for line in lines)]
        for split, lines in ((split, read_split(f"sdomain_{split}")) for split in ("train", "val"))
    }
    folders = {label: path.split("/")[1] for path, label in listed["train"]}
    names = [folders[label].replace("_", " ") for label in sorted(folders)]
    train, test = (split_files("domainnet200", root, part) for part in listed.values())
    return file_source("domainnet200", names, train, test, options, published=True)
