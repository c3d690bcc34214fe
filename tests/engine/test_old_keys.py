"""Keys of earlier versions: understood in TOML files, key=value and run folders."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from perdure.engine.config import load_config, make_config
from perdure.engine.folder import claim_folder
from perdure.engine.old_keys import current
from perdure.errors import CheckpointError, ConfigError
from perdure.learner import ContinualClassifier
from perdure.reports.results.runs import by_stream, read_run
from tests.reports.run_folders import finished_run

KNOWN = ("data", "lr")


@pytest.mark.parametrize(
    ("values", "data"),
    [
        ({"stream": "digits"}, "digits"),
        ({"stream": "folder", "path": "photos"}, "folder:photos"),
        ({"stream": "huggingface", "path": "user/name"}, "hf:user/name"),
        ({"stream": "cifar100", "path": Path("/data")}, "cifar100:/data"),
        ({"stream": "digits", "path": None, "data": None}, "digits"),
        ({"path": "/data"}, "imagenet_r:/data"),
    ],
)
def test_two_keys_became_one(values: dict[str, Any], data: str) -> None:
    assert current({"lr": 0.1, **values}, KNOWN, "imagenet_r") == {"lr": 0.1, "data": data}


def test_both_names_of_a_key_are_too_many() -> None:
    with pytest.raises(ConfigError, match="stream is called data now, and both are given"):
        current({"stream": "digits", "data": "photos"}, KNOWN)
    assert current({"mine": 3, "lr": 0.1}, KNOWN) == {"mine": 3, "lr": 0.1}


def test_a_file_and_what_is_typed(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('method = "lda"\nstream = "cifar100"\n')

    def data(*overrides: str) -> str:
        return load_config(str(file), overrides).stream.data

    assert data() == "cifar100"
    assert data("path=/data") == "cifar100:/data"
    assert data("stream=digits") == "digits"
    assert data("data=synthetic:3x8") == "synthetic:3x8"
    assert load_config("digits/lda", ["stream=table", "path=a.csv"]).stream.data == "table:a.csv"
    assert make_config({"method": "lda"}).replace(stream="synthetic").stream.data == "synthetic"


def as_before(folder: Path, **changes: Any) -> None:
    """Give a run's folder the configuration of an earlier version."""
    path = folder / "config.toml"
    values = tomllib.loads(path.read_text("utf-8"))
    source, _, place = values.pop("data").partition(":")
    values |= {"stream": source, **({"path": place} if place else {}), **changes}
    path.write_text(tomli_w.dumps(values), "utf-8")


def test_a_run_of_before_is_reported_beside_new_ones(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        finished_run(tmp_path / name, seed=seed, data="cifar100:/data")
    as_before(tmp_path / "a")
    runs = [read_run(tmp_path / name) for name in ("a", "b")]
    (section,) = by_stream([run for run in runs if run is not None])
    assert section.title.startswith("digits /data")
    assert len(section.variants) == 1


def test_a_run_of_before_cannot_go_on(tmp_path: Path) -> None:
    config = make_config({"method": "lda", "data": "cifar100:/data"})
    claim_folder(tmp_path, config, resume=False)
    claim_folder(tmp_path, config, resume=True)
    as_before(tmp_path)
    with pytest.raises(CheckpointError, match=r"begun by an earlier version .* \(stream, path\)"):
        claim_folder(tmp_path, config, resume=True)
    as_before_other = dataclasses.replace(config.stream, data="digits")
    with pytest.raises(CheckpointError, match="data: cifar100:/data there, digits now"):
        claim_folder(tmp_path, dataclasses.replace(config, stream=as_before_other), resume=True)
    (tmp_path / "results.json").write_text("[]")
    claim_folder(tmp_path, config, resume=True)


def test_options_of_a_classifier() -> None:
    with pytest.raises(ConfigError, match=r"options=\{'data': …\} has no use"):
        ContinualClassifier(options={"stream": "digits"}).settings()
