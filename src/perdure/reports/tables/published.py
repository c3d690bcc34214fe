"""Published results: ``published.toml``, with source, benchmark and setting of every row."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from perdure.engine.config import Config
from perdure.streams.tasks import task_sizes


@dataclass(frozen=True)
class PublishedStream:
    """A data set cut into tasks.

    Attributes:
        title: name in papers.
        stream: our name of the data set.
        classes: number of classes.
        tasks: number of tasks, all of as many classes.
        train_images: number of training images.
        test_images: number of test images.
        recipe: options of the source's own runs that depend on the benchmark.
    """

    title: str
    stream: str
    classes: int
    tasks: int
    train_images: int
    test_images: int
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes per task."""
        return (self.classes // self.tasks,) * self.tasks


@dataclass(frozen=True)
class PublishedResult:
    """One published result.

    Attributes:
        name: name of the method, as published.
        method: our name of it; None where we have none.
        source: where it stands.
        place: where in it.
        benchmark: name of the benchmark.
        accuracy: after the last task, in per cent.
        deviation: over seeds; None where it is not given.
        forgetting: forgetting in points; None where it is not given.
        accuracy_is: our metric that ``accuracy`` is.
        backbones: our names of the backbone with its weights; empty where it is not stated.
        setting: keys of a configuration with the values they had, as far as stated.
        seeds: seeds of the class orders; empty where they are not stated.
    """

    name: str
    method: str | None
    source: str
    place: str
    benchmark: PublishedStream
    accuracy: float
    deviation: float | None
    forgetting: float | None
    accuracy_is: str
    backbones: tuple[str, ...]
    setting: Mapping[str, Any]
    seeds: tuple[int, ...]


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return all of them."""
    return tuple(_published(_content()))


def published_for(config: Config) -> list[PublishedResult]:
    """Return the published results of a configuration's method on its stream, in its setting.

    What a source does not state of its setting may be anything.
    """
    if config.stream.images_per_class is not None or config.stream.validation_fraction:
        return []
    return [
        one
        for one in published_results()
        if (one.method, one.benchmark.stream) == (config.training.method, config.stream.source)
        and task_sizes(config.stream.tasks, one.benchmark.classes) == one.benchmark.sizes
        and (not one.backbones or config.training.backbone in one.backbones)
        and _same_setting(one.setting, config)
    ]


def notes_on(method: str) -> list[str]:
    """Return what is to be said of a method without any published number."""
    return [one["text"] for one in _content()["missing"] if one["method"] == method]


def published_cost() -> str:
    """Return what is known of the hardware and time of the published results."""
    return str(_content()["cost"])


def _same_setting(setting: Mapping[str, Any], config: Config) -> bool:
    given = config.flat()
    return all(
        value in config.head_names if key == "head" else given.get(key, value) == value
        for key, value in setting.items()
    )


def _published(content: Mapping[str, Any]) -> Iterator[PublishedResult]:
    """Take the tables apart: a result per row and benchmark that has one."""
    benchmarks = {key: PublishedStream(**given) for key, given in content["benchmarks"].items()}
    for table in content["tables"]:
        for row in table["rows"]:
            for place, key in enumerate(table["benchmarks"]):
                accuracy = _at(row.get("accuracy"), place)
                if accuracy is None:
                    continue
                recipe = benchmarks[key].recipe if table.get("follows_recipe") else {}
                yield PublishedResult(
                    name=row["name"],
                    method=row.get("method"),
                    source=table["source"],
                    place=row.get("place", table["place"]),
                    benchmark=benchmarks[key],
                    accuracy=accuracy,
                    deviation=_at(row.get("deviation"), place),
                    forgetting=_at(row.get("forgetting"), place),
                    accuracy_is=table["accuracy_is"],
                    backbones=tuple(table.get("backbones", ())),
                    setting={**table.get("setting", {}), **recipe, **row.get("options", {})},
                    seeds=tuple(table.get("seeds", ())),
                )


def _at(values: Sequence[float] | None, place: int) -> float | None:
    """Return the value at a place; None where it is not given."""
    return None if values is None or math.isnan(values[place]) else values[place]


@cache
def _content() -> dict[str, Any]:
    file = resources.files("perdure.reports.tables") / "published.toml"
    return tomllib.loads(file.read_text("utf-8"))
