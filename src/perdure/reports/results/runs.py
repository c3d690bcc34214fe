"""Finished runs as they lie on disk: results, configuration, machine; and which belong together."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure.engine.config import PARTS, neutral_keys, parts_of
from perdure.engine.old_keys import current
from perdure.errors import OutputError
from perdure.keys import defaults_of, keys_of
from perdure.methods import METHODS
from perdure.reports.results.files import read_results
from perdure.reports.results.groups import Entry, by_benchmark
from perdure.streams.config import split_data
from perdure.wording import counted

_TOLD_ELSEWHERE = keys_of(*PARTS, role="names_run")
"""Keys that never set two runs of one method apart by themselves."""


@dataclass(frozen=True)
class FinishedRun:
    """One run.

    Attributes:
        folder: where it lies.
        entries: one per head, as in ``results.json``; at least one.
        config: every key of the configuration; empty where it is not at hand.
        environment: versions and machine; empty where they are not at hand.
    """

    folder: Path
    entries: tuple[Entry, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.entries[0]["method"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.entries[0]["seed"])

    @property
    def model(self) -> Path:
        """The saved model's weights, there or not."""
        return self.folder / "model" / "weights.safetensors"

    @property
    def stream(self) -> tuple[Any, ...]:
        """What must be equal for two runs to stand in one table: images and tasks.

        Name, place, tasks, number of test images, and `formed`.
        """
        first = self.entries[0]
        images, sizes = first.get("test_counts"), first.get("task_sizes")
        tasks = tuple(sizes) if sizes else len(first["accuracy_matrix"])
        count = sum(images) if images else None
        place = split_data(self.config["data"])[1] if self.config else None
        return first["stream"], place, tasks, count, self.formed

    @property
    def formed(self) -> str:
        """Domains and long tail in words; empty for a plain stream of new classes."""
        increment, imbalance = self.config.get("increment"), self.config.get("imbalance")
        parts = []
        if increment not in (None, "classes"):
            chosen = self.config.get("domains")  # not those of the tasks: these may follow the seed
            parts.append(f"new {increment}" + (f" of {', '.join(chosen)}" if chosen else ""))
        if imbalance is not None:
            parts.append(f"imbalance {imbalance:g}")
        return " · ".join(parts)

    def setting(self) -> dict[str, Any]:
        """Return the configuration without what may differ between seeds or changes no result."""
        left_out = neutral_keys(self.config) | {"seed"}
        return {key: value for key, value in self.config.items() if key not in left_out}


@dataclass(frozen=True)
class StreamRuns:
    """Runs over one stream, which may stand in one table.

    Attributes:
        runs: at least one.
    """

    runs: tuple[FinishedRun, ...]

    @property
    def title(self) -> str:
        """Data set, tasks and test images in words."""
        name, place, tasks, images, formed = self.runs[0].stream
        parts = [f"{name} {place}" if place else str(name), describe_tasks(tasks)]
        parts += [formed] if formed else []
        return " · ".join([*parts, f"{images:,} test images"] if images is not None else parts)

    @cached_property
    def variants(self) -> list[list[FinishedRun]]:
        """Runs that differ by seed alone, or by what changes no result."""
        variants: dict[str, list[FinishedRun]] = {}
        for run in self.runs:
            # Without a configuration nobody can tell: such a run is a variant of its own.
            setting = run.setting() or str(run.folder)
            key = json.dumps([run.method, setting], sort_keys=True, default=str)
            variants.setdefault(key, []).append(run)
        return list(variants.values())

    @cached_property
    def entries(self) -> list[Entry]:
        """All `results`, with the benchmark alone as preset."""
        return by_benchmark(self.results)

    @cached_property
    def results(self) -> list[Entry]:
        """All results, each with its ``folder``, and as ``options`` what sets it apart."""
        return [
            {**entry, "folder": str(run.folder), "options": self.options(variant[0]) or None}
            for variant in self.variants
            for run in variant
            for entry in run.entries
        ]

    def owner(self, entry: Entry) -> FinishedRun:
        """Return the run that one of `entries` comes from."""
        return next(run for run in self.runs if str(run.folder) == entry["folder"])

    def label(self, run: FinishedRun, without: Collection[str] = ()) -> str:
        """Return the run's method, with the options that set it apart, some left out."""
        options = self.options(run, without)
        return f"{run.method} ({options})" if options else run.method

    def options(self, run: FinishedRun, without: Collection[str] = ()) -> str:
        """Return the keys, with values, in which variants of the run's method differ; some left out."""
        rivals = [
            variant[0].setting() for variant in self.variants if variant[0].method == run.method
        ]
        keys = dict.fromkeys(itertools.chain.from_iterable(rivals))
        return ", ".join(
            f"{key}={show(run.config.get(key))}"
            for key in keys
            if key not in {*_TOLD_ELSEWHERE, *without}
            and len({show(r.get(key)) for r in rivals}) > 1
        )


def read_run(folder: Path) -> FinishedRun | None:
    """Read the folder of a finished run; None where its ``results.json`` is an empty list.

    Raises:
        OutputError: a file is damaged or cannot be read, or there is no ``results.json``.
    """
    entries = read_results(folder)
    if not entries:
        return None
    given = _read(folder / "config.toml")
    config = {**defaults_of(*PARTS), **current(given, _known(given))} if given else {}
    return FinishedRun(folder, tuple(entries), config, _read(folder / "env.json"))


def _known(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Today's keys of a run, as far as its method is known here."""
    method = str(given.get("method"))
    return keys_of(*(parts_of(method) if method in METHODS else PARTS))


def by_stream(runs: Sequence[FinishedRun]) -> list[StreamRuns]:
    """Put apart what must not be mixed in one table, in order of arrival."""
    streams: dict[tuple[Any, ...], list[FinishedRun]] = {}
    for run in runs:
        streams.setdefault(run.stream, []).append(run)
    return [StreamRuns(tuple(members)) for members in streams.values()]


def entries_of(runs: Sequence[FinishedRun]) -> list[Entry]:
    """Results of runs over any streams; those of one name are told apart by their titles."""
    streams = by_stream(runs)
    names = [one.runs[0].stream[0] for one in streams]
    return [
        {**entry, "stream": one.title} if names.count(name) > 1 else entry
        for name, one in zip(names, streams, strict=True)
        for entry in one.results
    ]


def describe_tasks(tasks: int | tuple[int, ...]) -> str:
    """Say how classes come, from the classes per task or only the number of tasks.

    Examples:
        >>> describe_tasks((50, 10, 10)), describe_tasks((2,)), describe_tasks(3)
        ('3 tasks of 50 + 2 × 10 classes', '1 task of 2 classes', '3 tasks')
    """
    if isinstance(tasks, int):
        return counted(tasks, "task")
    runs = [(size, len(list(same))) for size, same in itertools.groupby(tasks)]
    sizes = " + ".join(f"{number} × {size}" if number > 1 else f"{size}" for size, number in runs)
    shown = sizes if len(runs) > 1 else runs[0][0]
    return f"{counted(len(tasks), 'task')} of {shown} classes"


def show(value: Any) -> str:
    """Return a value of a configuration as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return " ".join(show(item) for item in value) or "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(path: Path) -> dict[str, Any]:
    """Return what a TOML or JSON file holds; nothing where there is none."""
    parse = tomllib.loads if path.suffix == ".toml" else json.loads
    try:
        content = parse(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no keys")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(
            f"'{path}' cannot be read ({error}). Restore it, or remove it: the report will then say "
            "that it is not at hand."
        ) from error
    return content
