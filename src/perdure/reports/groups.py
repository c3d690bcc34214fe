"""Which results belong together: seeds of one method and head become one row, curve or heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]
"""One head of one run, as in ``results.json``."""

SETTING = ("stream", "backbone", "preset")
"""What else may differ between results, by the name of the key."""


@dataclass(frozen=True)
class Group:
    """Results that differ only by seed.

    Attributes:
        label: what tells the group from the others shown with it, such as ``nsp2 · gaussian``.
        method: name of the method.
        head: name of the head.
        setting: the value of each key in ``SETTING``; None where the result does not say.
        varying: the keys of ``SETTING`` in which the groups shown together differ.
        repeat: 1, or 2 and up where a group before has the same label but for the number.
        entries: one per seed, at least one.
    """

    label: str
    method: str
    head: str
    setting: Mapping[str, str | None]
    varying: tuple[str, ...]
    repeat: int
    entries: tuple[Entry, ...]

    @property
    def sees_old_images(self) -> bool:
        """Whether the method was given old images: an upper bound, no competitor."""
        return bool(self.entries[0].get("sees_old_images"))

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """The seed of each entry."""
        return tuple(entry.get("seed") for entry in self.entries)


def group(entries: Sequence[Entry]) -> list[Group]:
    """Join the entries of the same method, head, stream, backbone and preset, in order of arrival.

    A seed that comes again is another run (with other settings, for instance), never a further
    seed: it opens a group of its own, labelled ``#2``. So do entries with another number of tasks.
    """
    found: dict[tuple[Any, ...], list[Entry]] = {}
    repeats: dict[tuple[Any, ...], int] = {}
    for entry in entries:
        kind = (entry["method"], entry["head"], *(entry.get(key) for key in SETTING))
        run = (*kind, len(entry["accuracy_matrix"]), entry.get("seed"))
        repeats[run] = repeats.get(run, 0) + 1
        found.setdefault((*run[:-1], repeats[run]), []).append(entry)

    varying = tuple(
        key
        for place, key in enumerate(SETTING, start=2)
        if len({kind[place] for kind in found}) > 1
    )
    groups: list[Group] = []
    taken: dict[str, int] = {}
    for (method, head, *rest), members in found.items():
        setting = dict(zip(SETTING, rest[: len(SETTING)], strict=True))
        label = " · ".join([method, head, *(setting[key] or "–" for key in varying)])
        repeat = taken[label] = taken.get(label, 0) + 1
        if repeat > 1:
            label = f"{label} #{repeat}"
        groups.append(Group(label, method, head, setting, varying, repeat, tuple(members)))
    return groups
