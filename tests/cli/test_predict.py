"""``perdure predict``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Perdure


@pytest.fixture
def images(photos: Path) -> list[Path]:
    """Return four image files in one folder."""
    return sorted((photos / "dog").iterdir())


def test_for_people(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished, *images)
    assert (said.code, said.err) == (0, "")
    heads, *rows = said.out.splitlines()
    assert heads.split() == ["image", "class", "probability"]
    assert [row.split()[0] for row in rows] == [str(image) for image in images]
    assert all(row.split()[1].startswith("pattern_") and row.endswith(" %") for row in rows)


def test_as_json(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished / "model", images[0].parent, "--json")
    found = json.loads(said.out)
    assert [one["image"] for one in found] == [str(image) for image in images]
    assert all(0 < one["probability"] <= 1 for one in found)
    alone = json.loads(perdure("predict", finished, images[2], "--json").out)
    assert alone[0]["label"] == found[2]["label"]
    assert alone[0]["probability"] == pytest.approx(found[2]["probability"], rel=1e-4)


def test_head(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    last = perdure("predict", finished, images[0], "--json").out
    assert perdure("predict", finished, images[0], "--head", "gaussian", "--json").out == last
    assert perdure("predict", finished, "--head", "linear", images[0], "--json").out != last
    said = perdure("predict", finished, images[0], "--head", "gausian")
    assert (said.code, said.out) == (2, "")
    assert "This model has no head 'gausian'. It has: linear, gaussian." in said.err


def test_images_that_are_not_there(perdure: Perdure, finished: Path, images: list[Path]) -> None:
    said = perdure("predict", finished, images[0].with_name("0.pn"))
    assert (said.code, said.out) == (2, "")
    assert "Did you mean '0.png'?" in said.err
    said = perdure("predict", finished, finished / "checkpoints")
    assert (said.code, said.out) == (2, "")
    assert "holds no image file" in said.err


def test_unreadable_image(perdure: Perdure, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    said = perdure("predict", finished, tmp_path / "broken.png")
    assert (said.code, said.out) == (1, "")
    assert f"error: {tmp_path / 'broken.png'}: " in said.err


def test_folders_without_a_model(
    perdure: Perdure, finished: Path, images: list[Path], tmp_path: Path
) -> None:
    said = perdure("predict", f"{finished}s", images[0])
    assert (said.code, said.out) == (1, "")
    assert f"does not exist. Did you mean '{finished.name}'?" in said.err
    said = perdure("predict", images[0].parent, images[0])
    assert "holds no model" in said.err
    shutil.copy(finished / "config.toml", tmp_path / "config.toml")
    said = perdure("predict", tmp_path, images[0])
    assert "is not finished. Go on with `perdure run " in said.err


def test_damaged_model(
    perdure: Perdure, finished: Path, images: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    said = perdure("predict", tmp_path, images[0])
    assert (said.code, said.out) == (1, "")
    assert f"error: '{weights}' is damaged" in said.err
