"""List of published data sets: their files, publishers and folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.cache import home
from perdure.errors import StreamError

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
"""The domains of DomainNet, a zip and a folder each."""


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher offers it.

    Attributes:
        name: file name, also when it is put there by hand.
        url: where it is offered.
        megabytes: about how large it is.
        md5: its checksum; empty where none is known.
    """

    name: str
    url: str
    megabytes: int
    md5: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A published data set.

    Attributes:
        name: name of the source that loads it.
        title: common name.
        classes: number of classes.
        images: number of images, for training and testing together.
        split: which of them are for testing.
        publisher: where it comes from.
        licence: licence, as far as known.
        files: files to fetch; empty for none.
        holds: what its folder must hold to be taken for whole; a file that is published with
            ``.gz`` may lie there so.
        elsewhere: folders of the system that may hold it as well.
        advice: another way to get it.
    """

    name: str
    title: str
    classes: int
    images: int
    split: str
    publisher: str
    licence: str
    files: tuple[PublishedFile, ...] = ()
    holds: tuple[str, ...] = ()
    elsewhere: tuple[Path, ...] = ()
    advice: str = ""

    @property
    def folder(self) -> Path:
        """Folder of its unpacked files."""
        return home() / "data" / self.name

    @property
    def megabytes(self) -> int:
        """Approximate size of the download."""
        return sum(file.megabytes for file in self.files)

    @property
    def at_hand(self) -> bool:
        """Whether its images are on this machine already."""
        return not self.files or self.located() is not None

    def located(self) -> Path | None:
        """Return the folder of its images; None where there is none, or none is needed."""
        if not self.holds:
            return None
        folders = (*self.elsewhere, self.folder)
        return next((folder for folder in folders if not self.missing(folder)), None)

    def missing(self, folder: Path) -> list[str]:
        """Return the files and folders of this data set that a folder lacks."""
        zipped = {file.name for file in self.files}
        return [
            name
            for name in self.holds
            if not (folder / name).exists()
            and not (f"{name}.gz" in zipped and (folder / f"{name}.gz").exists())
        ]

    def root(self, place: str | None) -> Path:
        """Return the folder to load from.

        Args:
            place: folder named by the user; None for the cache.

        Raises:
            StreamError: the files are not there.
        """
        if place is None:
            located = self.located()
            if located is None:
                places = " and ".join(f"'{folder}'" for folder in (*self.elsewhere, self.folder))
                raise StreamError(
                    f"{self.title} was not found in {places}. Type: perdure data fetch {self.name} "
                    f"(about {self.megabytes:,} MB), or name the folder of its files with "
                    f"data={self.name}:FOLDER."
                )
            return located
        folder = Path(place).expanduser()
        missing = self.missing(folder)
        if missing:
            above = folder.parent
            hint = f" Type data='{self.name}:{above}'." if not self.missing(above) else ""
            raise StreamError(
                f"{self.title} was not found in '{folder}': it does not hold "
                f"{quoted(missing)}.{hint} Name the folder that holds what is missing with "
                f"data={self.name}:FOLDER, or type data={self.name}: then it is '{self.folder}'."
            )
        return folder


def quoted(names: Sequence[str]) -> str:
    """Return names in quotation marks, joined by commas."""
    return ", ".join(f"'{name}'" for name in names)


_CUB = "CUB_200_2011"
_DOMAINNET_MEGABYTES = (1200, 4000, 3400, 440, 5600, 2500)
_SPLITS = ("train", "test")
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_VISDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"


def _domain_url(domain: str) -> str:
    # The publisher cleaned these two later; the file numbers of the splits have gaps to match.
    cleaned = "groundtruth/" if domain in ("clipart", "painting") else ""
    return f"{_VISDA}/{cleaned}{domain}.zip"


_M3SDA = "http://ai.bu.edu/M3SDA/"
_FAIR_USE = "copyrighted images under a fair-use notice"
_DOMAINNET_ZIPS = tuple(
    PublishedFile(f"{domain}.zip", _domain_url(domain), megabytes)
    for domain, megabytes in zip(DOMAINS, _DOMAINNET_MEGABYTES, strict=True)
)
_DOMAINNET_LISTS = tuple(f"{domain}_{split}.txt" for domain in DOMAINS for split in _SPLITS)

_ENTRIES = (
    Benchmark(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        images=60_000,
        split="50,000 train, 10,000 test",
        publisher="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; its report is to be cited",
        files=(
            PublishedFile(
                "cifar-100-binary.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                161,
                # From memory of the publisher's page, which could not be reached.
                md5="03b5dce01913d631647c71ecec9e9cb8",
            ),
        ),
        holds=tuple(
            f"cifar-100-binary/{name}" for name in ("train.bin", "test.bin", "fine_label_names.txt")
        ),
    ),
    Benchmark(
        name="cub200",
        title="CUB-200-2011",
        classes=200,
        images=11_788,
        split="5,994 train, 5,794 test",
        publisher="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        licence="non-commercial research and education",
        files=(
            PublishedFile(
                f"{_CUB}.tgz",
                f"https://data.caltech.edu/records/65de6-vp158/files/{_CUB}.tgz",
                1150,
            ),
        ),
        holds=tuple(
            f"{_CUB}/{name}"
            for name in ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt")
        ),
    ),
    Benchmark(
        name="digits",
        title="scikit-learn's digits",
        classes=10,
        images=1_797,
        split="1,262 train, 535 test",
        publisher="comes with scikit-learn",
        licence="CC BY 4.0",
    ),
    Benchmark(
        name="domainnet",
        title="DomainNet (345 classes)",
        classes=345,
        # As others count the cleaned lists; the publisher's page could not be reached.
        images=586_575,
        split="409,832 train, 176,743 test",
        files=(
            *_DOMAINNET_ZIPS,
            *(
                PublishedFile(name, f"{_VISDA}/domainnet/txt/{name}", 4)
                for name in _DOMAINNET_LISTS
            ),
        ),
        holds=(*DOMAINS, *_DOMAINNET_LISTS),
        publisher=_M3SDA,
        licence=_FAIR_USE,
    ),
    Benchmark(
        name="domainnet200",
        title="DomainNet",
        classes=200,
        images=67_982,
        split="47,532 train, 20,450 test",
        files=_DOMAINNET_ZIPS,
        holds=DOMAINS,
        publisher=_M3SDA,
        licence=_FAIR_USE,
    ),
    Benchmark(
        name="fashion_mnist",
        title="Fashion-MNIST",
        classes=10,
        images=70_000,
        split="60,000 train, 10,000 test",
        publisher="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        files=tuple(
            PublishedFile(f"{name}.gz", f"{_FASHION}/{name}.gz", megabytes, md5)
            for name, megabytes, md5 in (
                ("train-images-idx3-ubyte", 26, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("train-labels-idx1-ubyte", 1, "25c81989df183df01b3e8a0aad5dffbe"),
                ("t10k-images-idx3-ubyte", 4, "bef4ecab320f06d8554ea6380940ec79"),
                ("t10k-labels-idx1-ubyte", 1, "bb300cfdad3c16e7a12a480ee83cd310"),
            )
        ),
        holds=(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        elsewhere=(Path("/usr/share/datasets/fashion-mnist"),),
        advice="sudo apt install dataset-fashion-mnist",
    ),
    Benchmark(
        name="imagenet_a",
        title="ImageNet-A",
        classes=200,
        images=7_500,
        split="a fifth of each class for testing",
        publisher="https://github.com/hendrycks/natural-adv-examples",
        licence="MIT for the collection; images of their owners",
        files=(PublishedFile("imagenet-a.tar", f"{_HENDRYCKS}/imagenet-a.tar", 690),),
        holds=("imagenet-a",),
    ),
    Benchmark(
        name="imagenet_r",
        title="ImageNet-R",
        classes=200,
        images=30_000,
        split="24,000 train, 6,000 test",
        publisher="https://github.com/hendrycks/imagenet-r",
        licence="MIT for the collection; images of their owners",
        files=(PublishedFile("imagenet-r.tar", f"{_HENDRYCKS}/imagenet-r.tar", 2190),),
        holds=("imagenet-r",),
    ),
)

BENCHMARKS = {entry.name: entry for entry in _ENTRIES}
"""Every published data set, by the name of its source."""
