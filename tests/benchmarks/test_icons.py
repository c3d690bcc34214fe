"""Classes from icon sets: names, families, and a split that lets nothing through."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest
from domain_tables import Spent, on_kind, spent
from drawings import ALIKE, Drawing, differences, distinct, look_of, looks, split, without_leaks
from icons import KIN_WORDS, Wanted, collect, families, permitted, read_sets, same_meaning, sides
from vocabulary import concept, is_word, synonyms

WORDS = [f"thing{first}{second}" for first in "abcde" for second in "uvwxyz"]


def about(**changes: Any) -> dict[str, Any]:
    entry = {"name": "Some", "author": {"name": "A"}, "license": {"spdx": "MIT"}}
    return {**entry, "category": "UI 24px", "palette": False, **changes}


def painted(body: str, box: object = None) -> np.ndarray:
    """Stands in for resvg: a drawing that its text alone decides."""
    seed = int(hashlib.sha256(body.encode()).hexdigest()[:8], 16)
    blocks = np.random.default_rng(seed).integers(0, 2, (16, 16), np.uint8) * 255
    return blocks.repeat(4, 0).repeat(4, 1)


def drawing(prefix: str, body: str, name: str = "icon") -> Drawing:
    pixels = painted(body)
    return Drawing(prefix, name, pixels, look_of(pixels))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("home", "home"),
        ("home-outline", "home"),
        ("home-2-outline", "home"),
        ("home-24px", "home"),
        ("home-line-duotone", "home"),
        ("home-off", "home-off"),
        ("arrow-left", "arrow-left"),
        ("bold", "bold"),
        ("24", "24"),
    ],
)
def test_a_name_without_its_marks_of_style(name, word):
    assert concept(name) == word


def test_a_sets_own_marks_come_off_first():
    assert concept("baseline-home-dusk", (["baseline"], ["", "dusk"])) == "home"
    assert concept("home-dusk") == "home-dusk"


def test_words():
    assert [text for text in ("home", "arrow-left", "x", "24", "bold") if is_word(text)] == ["home"]
    assert ("cog", "gear") in synonyms()
    assert all(one < other for one, other in synonyms())


@pytest.mark.parametrize(
    "change",
    [
        {"license": {"spdx": "GPL-3.0"}},
        {"license": {}},
        {"category": "Emoji"},
        {"category": None},
        {"palette": True},
        {"tags": ["Contains Animations"]},
        {"name": "Some Brands"},
    ],
)
def test_sets_that_may_not_be_used(change):
    assert permitted(about())
    assert not permitted(about(**change))


def test_a_look_does_not_depend_on_margins():
    inner = painted("one")[:32, :32].copy()
    inner[[0, -1]] = inner[:, [0, -1]] = 0
    padded = np.full((64, 64), 255, np.uint8)
    padded[7:39, 20:52] = inner
    np.testing.assert_array_equal(look_of(padded), look_of(inner))
    assert not look_of(np.full((64, 64), 255, np.uint8)).any()


def test_only_the_first_of_drawings_that_are_alike_is_kept():
    faded = painted("one").copy()
    faded[:4] = np.minimum(faded[:4], 240)
    given = np.stack([look_of(painted("one")), look_of(painted("two")), look_of(faded)])
    assert differences(given, given)[0, 2] < ALIKE < differences(given, given)[0, 1]
    assert distinct(given) == [0, 1]


def test_families_are_authors_and_forks():
    shared = {word: [drawing("a", word), drawing("fork", word)] for word in WORDS[:KIN_WORDS]}
    apart = {
        word: [drawing("a", f"a {word}"), drawing("other", f"other {word}")]
        for word in WORDS[KIN_WORDS:]
    }
    authors = {"a": "A", "again": "A", "fork": "F", "other": "O"}
    found = families(authors, shared | apart)
    assert found == {"a": "a", "again": "a", "fork": "a", "other": "other"}
    few = dict(list(shared.items())[:-1])
    assert families(authors, few | apart)["fork"] == "fork"


def test_sides_depend_on_names_alone_and_keep_to_the_share():
    sizes = {f"family {index}": 10 + index for index in range(20)}
    found = sides(sizes)
    assert found == sides(dict(reversed(sizes.items())))
    share = sum(sizes[name] for name in found if found[name] == "test") / sum(sizes.values())
    assert 0.2 < share <= 0.3


def test_the_training_side_keeps_what_both_have():
    both = [drawing("late", "same"), drawing("late", "new"), drawing("early", "same")]
    found = split(both, {"late": "test", "early": "train"})
    assert [entry.prefix for entry in found["train"]] == ["early"]
    assert found["test"] == [both[1]]


def test_no_test_drawing_is_like_a_training_drawing_of_another_class():
    found = without_leaks(
        {
            "bin": {"train": [drawing("a", "one")], "test": [drawing("b", "two")]},
            "can": {
                "train": [drawing("a", "two")],
                "test": [drawing("b", "three"), drawing("b", "one")],
            },
        }
    )
    assert found["bin"]["test"] == []
    assert [entry.look.tolist() for entry in found["can"]["test"]] == [
        look_of(painted("three")).tolist()
    ]


def archive(folder, sets: dict[str, dict[str, Any]], brands: list[str]):
    """A package as npm packs it."""
    path = folder / "iconify-json-1.0.tgz"
    logos = ("bxl", "cib", "fa7-brands", "logos", "simple-icons", "streamline-logos")
    entries = {prefix: about(author={"name": prefix}) for prefix in sets}
    files = {"collections": entries | {name: about(category="Logos") for name in logos}}
    files |= {f"json/{name}": {"icons": {brand: {} for brand in brands}} for name in logos}
    files |= {f"json/{prefix}": content for prefix, content in sets.items()}
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return path


def test_a_collection_from_a_package(tmp_path):
    """Ten sets draw each word once; one is a fork, one word is a brand, one has an alias."""
    sets = {}
    for number in range(10):
        source = 0 if number == 9 else number
        icons = {f"{word}-outline": {"body": f"{source} {word}"} for word in WORDS}
        icons["ghost"] = {"body": "gone", "hidden": True}
        sets[f"set{number}"] = {"icons": icons, "width": 24, "height": 24}
    sets["set1"]["aliases"] = {WORDS[3]: {"parent": f"{WORDS[2]}-outline"}}
    read, brands = read_sets(archive(tmp_path, sets, [WORDS[0]]))
    assert brands == {WORDS[0]}
    assert len(read) == 10
    assert read[0].boxes[f"{WORDS[1]}-outline"] == (0, 0, 24, 24)
    wanted = Wanted(5, authors=9, least={"train": 4, "test": 1}, most={"train": 5, "test": 3})
    found = collect(read, brands, wanted, painted)
    assert list(found.classes) == [WORDS[1], WORDS[2], *WORDS[4:7]]
    assert found.family_of["set9"] == found.family_of["set0"] == "set0"
    for word in found.classes.values():
        assert wanted.enough(word)
        assert {found.side_of[entry.prefix] for entry in word["train"]} == {"train"}
        assert {found.side_of[entry.prefix] for entry in word["test"]} == {"test"}
        apart = differences(looks(word["test"]), looks(word["train"]))
        assert apart.min() > ALIKE
    with pytest.raises(SystemExit, match="28 classes, and 40 are needed"):
        collect(read, brands, Wanted(40, 9, wanted.least, wanted.most), painted)


def test_words_that_share_drawings_mean_the_same():
    drawings = {
        "jar": [drawing("a", "one"), drawing("b", "two")],
        "pot": [drawing("c", "one"), drawing("d", "three")],
        "tin": [drawing("c", "four")],
    }
    known = {pair for pair in same_meaning([], drawings) if set(pair) <= set(drawings)}
    assert known == {("jar", "pot")}


def test_seconds_of_tasks_from_events(tmp_path):
    log = tmp_path / "events.jsonl"
    events = [
        {"time": 0, "kind": "run"},
        {"time": 10, "kind": "task", "images": 32},
        {"time": 14, "kind": "epoch", "images_per_second": 8},
        {"time": 18, "kind": "epoch", "images_per_second": 16},
        {"time": 20, "kind": "accuracy", "head": "linear"},
        {"time": 20, "kind": "accuracy", "head": "gaussian"},
        {"time": 21, "kind": "task", "images": 32},
        {"time": 30, "kind": "resume"},
        {"time": 40, "kind": "accuracy", "head": "linear"},
    ]
    log.write_text("\n".join(json.dumps(event) for event in events))
    assert spent(log) == [Spent(6.0, 4.0)]


def test_accuracy_on_a_domain_counts_images():
    matrix = np.full((15, 15), 0.5)
    matrix[9, :5] = [1, 0, 0, 0, 0]
    entry = {"accuracy_matrix": matrix.tolist(), "test_counts": [6, 1, 1, 1, 1] * 3}
    assert on_kind(entry, 0, 1) == 0.6
    assert on_kind(entry, 1, 2) == 0.5
