"""Small archives in the layouts of the real ones, and a server that offers files."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perdure.streams.fetch.published import DOMAINS, PUBLISHED, PublishedData

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there."""

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Été_à la_mer")
SYNSETS = ("n01443537", "n02129165", "n12267677")
DRAWN = {
    0: "real/pickup_truck/real_221_{:06d}.jpg",
    1: "quickdraw/The_Eiffel_Tower/{}.png",
    2: "clipart/animal_migration/clipart_008_{:06d}.jpg",
}


@cache
def image_bytes(number: int, kind: str = "JPEG") -> bytes:
    """Return a file of 8 x 6 pixels, another one for every number."""
    pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (6, 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_cifar100(archives: Path) -> None:
    """Three classes; the binary version has a superclass, a class and three planes per image."""
    draw = np.random.Generator(np.random.PCG64(0))
    parts = {}
    for split, count in (("train", 12), ("test", 6)):
        records = draw.integers(0, 256, (count, 3074), np.uint8)
        records[:, 1] = np.arange(count) % 3
        parts[f"cifar-100-binary/{split}.bin"] = records.tobytes()
    parts["cifar-100-binary/fine_label_names.txt"] = b"apple\naquarium_fish\nbaby\n\n"
    parts["cifar-100-binary/coarse_label_names.txt"] = b"fish\n"
    write_tar(archives / "cifar-100-binary.tar.gz", parts, "w:gz")


def cub_members() -> dict[str, bytes]:
    """Three birds of four images; the even ones are for training."""
    names = [
        f"{bird}/{bird[4:]}_{index:04d}_{7 * index}.jpg" for bird in BIRDS for index in range(4)
    ]
    lines = {
        "images.txt": names,
        "image_class_labels.txt": [str(int(name[:3])) for name in names],
        "train_test_split.txt": [str(1 - index % 2) for index in range(len(names))],
    }
    numbered = {
        f"CUB_200_2011/{file}": "".join(
            f"{number} {line}\n" for number, line in enumerate(column, start=1)
        ).encode()
        for file, column in lines.items()
    }
    images = {
        f"CUB_200_2011/images/{name}": image_bytes(number) for number, name in enumerate(names)
    }
    return {"attributes.txt": b"1 has_bill_shape::curved\n", **numbered, **images}


def write_cub200(archives: Path) -> None:
    write_tar(archives / "CUB_200_2011.tgz", cub_members(), "w:gz")


def imagenet_members(top: str) -> dict[str, bytes]:
    """Three synsets of five images."""
    images = {
        f"{top}/{synset}/art_{index}.jpg": image_bytes(10 * place + index)
        for place, synset in enumerate(SYNSETS)
        for index in range(5)
    }
    return {f"{top}/README.txt": b"n01443537 goldfish\n", **images}


def write_imagenet_r(archives: Path) -> None:
    write_tar(archives / "imagenet-r.tar", imagenet_members("imagenet-r"))


def write_imagenet_a(archives: Path) -> None:
    write_tar(archives / "imagenet-a.tar", imagenet_members("imagenet-a"))


def write_domainnet200(archives: Path) -> None:
    """Three classes of five images, and one of the 145 that the split leaves out."""
    members: dict[str, dict[str, bytes]] = {
        domain: {f"{domain}/zebra/{domain}_345_000001.jpg": image_bytes(99)}
        for domain in PUBLISHED["domainnet200"].holds
    }
    for label, pattern in DRAWN.items():
        for index in range(5):
            name = pattern.format(index)
            kind = "PNG" if name.endswith(".png") else "JPEG"
            members[name.partition("/")[0]][name] = image_bytes(10 * label + index, kind)
    for domain, files in members.items():
        write_zip(archives / f"{domain}.zip", files)


def write_domainnet(archives: Path) -> None:
    """Three classes in six domains, three images each, with the publisher's lists beside the zips."""
    archives.mkdir(parents=True, exist_ok=True)
    for place, domain in enumerate(DOMAINS):
        files, lists = {}, {"train": "", "test": ""}
        for label, name in enumerate(("aircraft_carrier", "The_Eiffel_Tower", "zebra")):
            for index in range(3):
                kind = "PNG" if domain == "quickdraw" else "JPEG"
                file = (
                    f"{domain}_{label:03d}_{index:06d}.jpg" if kind == "JPEG" else f"{index}9.png"
                )
                path = f"{domain}/{name}/{file}"
                files[path] = image_bytes(100 * place + 10 * label + index, kind)
                lists["test" if index == 2 else "train"] += f"{path} {label}\n"
        write_zip(archives / f"{domain}.zip", files)
        for split, text in lists.items():
            (archives / f"{domain}_{split}.txt").write_text(text)


def write_fashion_mnist(archives: Path) -> None:
    archives.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 20), ("t10k", 10)):
        pixels = np.random.Generator(np.random.PCG64(count)).integers(0, 256, 4 * count, np.uint8)
        images = b"\0\0\x08\3" + np.array([count, 2, 2], ">u4").tobytes() + pixels.tobytes()
        labels = b"\0\0\x08\1" + np.array([count], ">u4").tobytes()
        labels += (np.arange(count) % 10).astype(np.uint8).tobytes()
        (archives / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (archives / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


WRITERS = {
    "cifar100": write_cifar100,
    "cub200": write_cub200,
    "domainnet": write_domainnet,
    "domainnet200": write_domainnet200,
    "fashion_mnist": write_fashion_mnist,
    "imagenet_a": write_imagenet_a,
    "imagenet_r": write_imagenet_r,
}
"""What puts the small archives of a benchmark into a folder."""

SPLITS = {
    "imagenet_r_train": [f"{synset}/art_{index}.jpg" for synset in SYNSETS for index in range(4)],
    "imagenet_r_val": [f"{synset}/art_4.jpg" for synset in SYNSETS],
    "sdomain_train": [
        f"{pattern.format(index)} {label}" for label, pattern in DRAWN.items() for index in range(3)
    ],
    "sdomain_val": [
        f"{pattern.format(index)} {label}" for label, pattern in DRAWN.items() for index in (3, 4)
    ],
}
"""Splits of the small archives, in the form of the published ones."""


def offer(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str = NOWHERE, **changes: Any
) -> PublishedData:
    """Let the small files stand for a benchmark's, offered below a URL; the system has none."""
    known = PUBLISHED[name]
    files = tuple(replace(file, url=f"{url}/{file.name}", md5="") for file in known.files)
    changed = replace(known, **{"files": files, "elsewhere": (), **changes})
    monkeypatch.setitem(PUBLISHED, name, changed)
    return changed


class Server(ThreadingHTTPServer):
    """Offers the files of a folder.

    Attributes:
        cuts: after how many bytes each of the next answers ends too early.
        asked: the Range header of every request, "" where there was none.
        version: names the present version of every file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.cuts: list[int] = []
        self.asked: list[str] = []
        self.version = "one"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        file = server.folder / Path(self.path).name
        server.asked.append(self.headers.get("Range", ""))
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        start = 0
        if self.headers.get("If-Range") == f'"{server.version}"':
            start = int(server.asked[-1].removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{server.version}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Server, str]]:
    """Serve a folder; gives the server and its URL."""
    with Server(folder) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
