"""``perdure data``: listing, fetching and checking data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.cache import archives_dir
from perdure.cli.commands import data
from perdure.streams import PUBLISHED
from perdure.streams.fetch import fetching
from tests.cli.command import Perdure
from tests.streams.published import offer, serving, write_cifar100
from tests.tiny import TINY


def test_ls(perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(monkeypatch, "fashion_mnist")
    said = perdure("data", "ls")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[0] for line in said.out.splitlines()] == ["name", *PUBLISHED]
    items = {item["name"]: item for item in json.loads(perdure("data", "ls", "--json").out)}
    assert [name for name, item in items.items() if item["at_hand"]] == ["digits"]
    assert items["imagenet_r"]["classes"] == 200
    assert items["cifar100"]["files"][0]["md5"] == "03b5dce01913d631647c71ecec9e9cb8"
    assert len(items["domainnet200"]["files"]) == 6
    assert not (tmp_path / "cache").exists()


def test_fetch(perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_cifar100(tmp_path / "offered")
    with serving(tmp_path / "offered") as (_, url):
        offer(monkeypatch, "cifar100", url)
        said = perdure("data", "fetch", "cifar100")
    folder = tmp_path / "cache" / "data" / "cifar100"
    assert (said.code, said.out, said.err) == (0, f"CIFAR-100 is at hand: {folder}\n", "")
    again = json.loads(perdure("data", "fetch", "cifar100", "--json").out)
    assert again["already_at_hand"] is True
    assert again["folder"] == str(folder)
    digits = perdure("data", "fetch", "digits")
    assert digits.out == "scikit-learn's digits is at hand: comes with scikit-learn\n"


def test_fetch_without_network_and_then_by_hand(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, "cifar100")
    said = perdure("data", "fetch", "cifar100")
    assert (said.code, said.out) == (1, "")
    assert f"Put what you fetched into '{archives_dir()}'" in said.err
    write_cifar100(archives_dir())
    said = perdure("data", "fetch", "cifar100", "--json")
    assert (said.code, json.loads(said.out)["already_at_hand"]) == (0, False)


def test_an_interrupted_fetch_says_how_to_go_on(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    offer(monkeypatch, "cifar100")
    monkeypatch.setattr(fetching, "fetch", interrupted)
    said = perdure("data", "fetch", "cifar100")
    assert (said.code, said.err) == (
        130,
        "\ninterrupted. Go on with: perdure data fetch cifar100\n",
    )


def test_a_run_without_its_images(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "cifar100")
    words = ("digits/ncm", *TINY, "data=cifar100")
    for more in ([], ["--dry-run"]):
        said = perdure("run", *words, *more)
        assert (said.code, said.out) == (1, "")
        assert "Type: perdure data fetch cifar100 (about 161 MB)" in said.err


def test_a_run_on_a_benchmark(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, "cifar100")
    write_cifar100(archives_dir())
    perdure("data", "fetch", "cifar100")
    words = (*TINY, "data=cifar100", "tasks=2+1", "--out", tmp_path / "out", "-q", "--json")
    made = json.loads(perdure("run", "digits/ncm", *words).out)
    assert sorted(made["results"][0]["class_names"]) == ["apple", "aquarium fish", "baby"]


def test_check(perdure: Perdure, photos: Path) -> None:
    said = perdure("data", "check", photos)
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "classes  3\nimages   12 train, 0 test\nunusual  none\nignored  0\nfaults   0\n"
    )
    empty = photos / "cat" / "0.png"
    empty.write_bytes(b"")
    said = perdure("data", "check", photos, "--min-images", 4)
    assert (said.code, said.err) == (1, "")
    assert said.out.splitlines()[:3] == [
        f"unreadable  {empty}: the file is empty",
        "few         class 'cat': 3 readable, 4 wanted",
        "",
    ]
    found = json.loads(perdure("data", "check", photos, "--json").out)
    assert found["ok"] is False
    assert found["faults"] == [{"kind": "unreadable", "text": f"{empty}: the file is empty"}]
    assert (found["classes"], found["train"]) == (3, 11)


def test_long_lists_of_faults_are_cut(
    perdure: Perdure, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "FAULTS_SHOWN", 2)
    for path in photos.glob("*/*.png"):
        path.write_bytes(b"")
    said = perdure("data", "check", photos)
    assert said.out.splitlines()[2] == "and 13 more; --json lists all"
    assert len(json.loads(perdure("data", "check", photos, "--json").out)["faults"]) == 15


def test_a_place_that_is_not_there_is_told_before_anything_is_judged(
    perdure: Perdure, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    file = tmp_path / "reports" / "suspects.csv"
    said = perdure("data", "check", photos, "--model", tmp_path / "model", "--csv", file)
    assert (said.code, said.out) == (1, "")
    assert f"There is no folder '{file.parent}' to write 'suspects.csv' to." in said.err


def test_check_takes_the_columns_of_a_table(perdure: Perdure, photos: Path, tmp_path: Path) -> None:
    table, files = tmp_path / "photos.csv", sorted(photos.rglob("*.png"))[:3]
    lines = [f"{path};{path.parent.name}" for path in files]
    table.write_text("\n".join(["foto;klasse", *lines]))
    said = perdure("data", "check", table)
    assert said.code == 1
    assert "image_column=" in said.err
    told = ["image_column=foto", "label_column=klasse"]
    assert json.loads(perdure("data", "check", table, *told, "--json").out)["train"] == len(files)
    table.write_text("\n".join(lines))
    places = ["image_column=1", "--json", "label_column=2"]
    assert json.loads(perdure("data", "check", table, *places).out)["train"] == len(files)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fetch", "cifar"], "Unknown data set 'cifar'. Did you mean 'cifar100'?"),
        (["fetch"], "The following arguments are required: NAME. Try `perdure data fetch --help`."),
        (["check", "nowhere"], "'nowhere' is neither a published data set nor a folder or table."),
        (["check", "digits", "--min-images", "0"], "'0' is not a whole number of 1 or more"),
        (["check", "digits", "label_column=klasse"], "'digits' is no table, so it has no columns."),
        (["check", "digits", "label_colum=1"], "Did you mean 'label_column'?"),
        (["fetsch", "cub200"], "Unknown verb 'fetsch'. Did you mean 'fetch'?"),
        (["ls", "cifar100"], "Unknown argument 'cifar100'."),
    ],
)
def test_wrong_usage(perdure: Perdure, words: list[str], expected: str) -> None:
    said = perdure("data", *words)
    assert (said.code, said.out) == (2, "")
    assert expected in said.err
