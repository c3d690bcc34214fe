"""Which results belong together: seeds of one method and head become one row, curve or heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]
"""One head of one run, as in ``results.json``."""

SETTING = ("stream", "backbone", "preset", "options")
"""What else may differ between results, by the name of the key.

``options`` are the keys of the configuration that set runs of one method apart; `reports.runs` adds
them to results whose configuration is at hand.
"""


@dataclass(frozen=True)
class Group:
    """Results that differ only by seed.

    Attributes:
        label: name that tells it from other groups, such as ``nsp2 · gaussian``.
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
    """Join the entries of the same method, head and ``SETTING``, in order of arrival.

    A seed that comes again is another run (with other settings, for instance), never a further
    seed: it opens a group of its own, labelled ``#2``. So do entries with another number of tasks.
    """
    members_of: dict[tuple[Any, ...], list[Entry]] = {}
    repeats: dict[tuple[Any, ...], int] = {}
    for entry in entries:
        kind = (entry["method"], entry["head"], *(entry.get(key) for key in SETTING))
        run = (*kind, len(entry["accuracy_matrix"]), entry.get("seed"))
        repeats[run] = repeats.get(run, 0) + 1
        members_of.setdefault((*run[:-1], repeats[run]), []).append(entry)

    varying = tuple(
        key
        for place, key in enumerate(SETTING, start=2)
        if len({kind[place] for kind in members_of}) > 1
    )
    groups: list[Group] = []
    taken: dict[str, int] = {}
    for (method, head, *rest), members in members_of.items():
        setting = dict(zip(SETTING, rest[: len(SETTING)], strict=True))
        told = [setting[key] or "–" for key in varying if key != "options" or setting[key]]
        label = " · ".join([method, head, *told])
        repeat = taken[label] = taken.get(label, 0) + 1
        if repeat > 1:
            label = f"{label} #{repeat}"
        groups.append(Group(label, method, head, setting, varying, repeat, tuple(members)))
    return groups


def by_benchmark(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with the benchmark alone as preset: the method has a column of its own.

    A preset that is a file stays as it is.
    """
    return [
        {**entry, "preset": preset.removesuffix(f"/{entry['method']}")}
        if (preset := entry.get("preset"))
        else dict(entry)
        for entry in entries
    ]
