"""Presets on the command line: ``perdure ls presets`` and ``perdure show PRESET``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tomli_w

from perdure.cli.output import messages, print_columns
from perdure.engine.config import load_config, read_preset
from perdure.presets.sections import find_preset, preset_files, preset_names
from perdure.reports.tables.published import (
    PublishedResult,
    notes_on,
    published_cost,
    published_for,
)

Item = dict[str, Any]


def print_benchmarks() -> None:
    """Print the presets as their files name them: a line would be too much for each."""
    rows = [
        [file.name if place == 0 else "", pattern]
        for file in preset_files()
        for place, pattern in enumerate(file.patterns)
    ]
    print_columns(["benchmark", "presets"], rows)
    messages().print(
        f"{len(preset_names())} presets; {{a,b}} stands for either. "
        "A line for each: perdure ls presets cifar100"
    )


def describe_briefly(name: str) -> Item:
    """Return what `ls` tells of a preset."""
    preset, values = find_preset(name), read_preset(name)
    keys = ("method", "data", "backbone", "tasks")
    return {
        "name": name,
        "summary": preset.about[0],
        "benchmark": preset.benchmark,
        **{key: values[key] for key in keys},
    }


def describe_preset(name: str) -> Item:
    """Return what `show` tells of a preset."""
    config = load_config(name)
    return {
        "kind": "preset",
        **describe_briefly(name),
        "about": [*find_preset(name).about, f"perdure run {name}"],
        "published": [_record(one) for one in published_for(config)],
        "notes": notes_on(config.training.method),
        "values": config.flat(),
        "set_by_preset": sorted(read_preset(name)),
    }


def print_preset(item: Item) -> None:
    """Print the preset as a file that `perdure run` would take."""
    for line in (*item["about"], "", *_publications(item)):
        print(f"# {line}".rstrip())
    chosen = item["set_by_preset"]
    parts = (
        (f"set by {item['name']}", [key for key in item["values"] if key in chosen]),
        ("defaults", [key for key in item["values"] if key not in chosen]),
    )
    for title, keys in parts:
        print(f"\n# {title}")
        print(tomli_w.dumps({key: item["values"][key] for key in keys}), end="")


def _record(published: PublishedResult) -> Item:
    """Return a published result for JSON; accuracy and forgetting as fractions."""
    figures = {
        key: None if value is None else value / 100
        for key, value in (
            ("accuracy", published.accuracy),
            ("deviation", published.deviation),
            ("forgetting", published.forgetting),
        )
    }
    return {
        "name": published.name,
        "source": published.source,
        "place": published.place,
        "accuracy_is": published.accuracy_is,
        **figures,
        "seeds": list(published.seeds),
        "setting_is_stated": bool(published.setting),
        "hardware_and_time": published_cost(),
    }


def _publications(item: Item) -> Iterator[str]:
    """Say what is published: how much, where, and what it took."""
    for one in item["published"]:
        spread = "" if one["deviation"] is None else f" ± {100 * one['deviation']:.2f}"
        lost = one["forgetting"]
        forgotten = "" if lost is None else f", forgetting {100 * lost:.2f} points"
        unknown = "" if one["setting_is_stated"] else "; its setting is not stated"
        yield f"published: {one['accuracy_is']} {100 * one['accuracy']:.2f}{spread} %{forgotten}"
        yield f"  as {one['name']}, {one['source']}: {one['place']}{unknown}"
        yield f"  {one['hardware_and_time']}"
    if not item["published"]:
        yield "published: no score, hardware or time that is known to us"
    yield from item["notes"]
