"""Preset files: sections that hold for every preset whose name their title matches.

Of two sections that set a key of a preset, the one that holds for fewer presets wins.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

from perdure.errors import ConfigError, UnknownNameError, did_you_mean


@dataclass(frozen=True)
class Section:
    """Section of a preset file.

    Attributes:
        file: where it stands.
        title: pattern of the names of presets.
        presets: those of the benchmark whose names match it.
        values: its keys.
        about: its words for ``perdure show``; empty for none.
    """

    file: str
    title: str
    presets: tuple[str, ...]
    values: Mapping[str, Any]
    about: str

    @property
    def methods(self) -> set[str]:
        """The methods of its presets."""
        return {method_of(name) for name in self.presets}


@dataclass(frozen=True, eq=False)
class PresetFile:
    """Preset file of one benchmark.

    Attributes:
        name: name of the file.
        patterns: patterns of the names of its presets, as the file has them.
        names: names of its presets.
        sections: its own, then those of its recipes.
    """

    name: str
    patterns: tuple[str, ...]
    names: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Preset:
    """Preset: its name, sections and description.

    Attributes:
        name: ``group/method``, or ``group/method-variant``, or after the slash any name whose
            sections say the method.
        benchmark: the file it stands in.
        sections: those that hold for it: the benchmark's own, then those of its recipes.
    """

    name: str
    benchmark: str
    sections: tuple[Section, ...]

    @property
    def method(self) -> str:
        """Method that its sections set, else the one named after the group."""
        stated = [one.values["method"] for one in self.ranked if "method" in one.values]
        return str(stated[-1]) if stated else method_of(self.name)

    @property
    def ranked(self) -> list[Section]:
        """Its sections, the winning last: the specific beats the shared.

        Of two, the one wins that holds for fewer presets of the benchmark; where they hold for equally
        many, that of the benchmark's own file; of two in one file, the later.
        """
        own = f"{self.benchmark}.toml"
        return sorted(self.sections, key=lambda one: (-len(one.presets), one.file == own))

    @property
    def about(self) -> tuple[str, ...]:
        """What it is, the most particular first."""
        return tuple(section.about for section in reversed(self.sections) if section.about)


def expand(pattern: str) -> list[str]:
    """Write out the alternatives of a pattern, as a shell does; braces do not nest.

    Examples:
        >>> expand("cifar100-{10s,20s}/{nsp2,pgp}")
        ['cifar100-10s/nsp2', 'cifar100-10s/pgp', 'cifar100-20s/nsp2', 'cifar100-20s/pgp']
        >>> expand("*/nsp2*")
        ['*/nsp2*']
    """
    head, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inner, _, tail = rest.partition("}")
    return [head + one + end for one in inner.split(",") for end in expand(tail)]


def method_of(name: str) -> str:
    """Return the method in a preset's name.

    Examples:
        >>> method_of("cifar100-10s/nsp2-b1+ln")
        'nsp2'
    """
    return name.partition("/")[2].partition("-")[0]


@cache
def preset_files() -> tuple[PresetFile, ...]:
    """Read all preset files."""
    folder = resources.files("perdure.presets")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return tuple(_read(name.removesuffix(".toml")) for name in files)


def preset_names() -> list[str]:
    """Names of all presets, benchmark by benchmark."""
    return [name for file in preset_files() for name in file.names]


def find_preset(name: str) -> Preset:
    """Find a preset by name.

    Raises:
        UnknownNameError: no such preset.
        ConfigError: the name is not of the form of a preset's.
    """
    for file in preset_files():
        if name in file.names:
            held = tuple(section for section in file.sections if name in section.presets)
            return Preset(name, file.name, held)
    raise unknown_preset(name)


def unknown_preset(name: str) -> ConfigError:
    """Build the error for a name that is no preset's; it lists what comes closest, not all there is."""
    group, slash, row = name.partition("/")
    if not slash:
        return ConfigError(
            f"Unknown preset '{name}'. A preset is benchmark/method, as digits/nsp2; a file ends in "
            ".toml. `perdure ls presets` lists the presets."
        )
    known = preset_names()
    of_benchmark = {one.name: one.names for one in preset_files()}.get(group.partition("-")[0], ())
    # One in the same group is meant, else one of the same method: not what is merely spelled alike.
    near = [one for one in known if one.startswith(f"{group}/")]
    alike = [one for one in of_benchmark or known if one.endswith(f"/{row}")]
    if near:
        listed = f"Known of {group}: {', '.join(one.partition('/')[2] for one in near)}."
    elif of_benchmark:
        listed = f"There is: {', '.join(alike or _groups(of_benchmark))}."
    else:
        listed = f"Benchmarks: {', '.join(one.name for one in preset_files())}."
    guess = did_you_mean(name, near or alike or ([] if of_benchmark else known))
    return UnknownNameError(
        f"Unknown preset '{name}'.{guess} {listed} `perdure ls presets` lists the presets."
    )


def _groups(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(f"{name.partition('/')[0]}/…" for name in names))


def _read(name: str) -> PresetFile:
    own = _toml(f"{name}.toml")
    recipes: Sequence[str] = own.pop("recipes", ())
    patterns = tuple(own.pop("presets"))
    names = tuple(one for pattern in patterns for one in expand(pattern))
    contents = {f"{name}.toml": own}
    contents |= {file: _toml(file) for file in (f"recipes/{recipe}.toml" for recipe in recipes)}
    sections = [
        Section(file, title, _matching(title, names), values, values.pop("about", ""))
        for file, content in contents.items()
        for title, values in content.items()
    ]
    return PresetFile(name, patterns, names, tuple(sections))


def _matching(title: str, names: Iterable[str]) -> tuple[str, ...]:
    patterns = expand(title)
    return tuple(name for name in names if any(fnmatchcase(name, one) for one in patterns))


def _toml(file: str) -> dict[str, Any]:
    path = resources.files("perdure.presets").joinpath(*file.split("/"))
    return tomllib.loads(path.read_text("utf-8"))
