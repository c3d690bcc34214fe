"""``perdure ls`` and ``perdure show``: what there is, and what one of it is."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from perdure.backbones.catalog import describe, entries
from perdure.cli.config_keys import Option, options_of
from perdure.cli.output import print_columns, print_fields, print_json
from perdure.cli.parsing import UsageError
from perdure.cli.show_model import describe as describe_model
from perdure.cli.show_model import print_model, saved_model
from perdure.cli.show_preset import describe_preset, presets, print_benchmarks, print_preset
from perdure.engine.config import PARTS
from perdure.errors import UnknownNameError, did_you_mean, unknown_name
from perdure.heads import HEADS
from perdure.methods import METHODS
from perdure.presets.sections import preset_names, unknown_preset
from perdure.streams import BENCHMARKS, SOURCES, TRANSFORMS

Item = dict[str, Any]


def ls(args: argparse.Namespace) -> int:
    """Do ``perdure ls``."""
    items = LISTS[args.kind]()
    if args.within:
        items = _narrowed(args.kind, args.within, items)
    if args.json:
        print_json(items)
        return 0
    if args.kind == "presets" and not args.within:
        print_benchmarks()
        return 0
    heads, row = _COLUMNS[args.kind]
    print_columns(heads, [row(item) for item in items])
    return 0


def show(args: argparse.Namespace) -> int:
    """Do ``perdure show``."""
    if args.plot:
        from perdure.cli.show_stream import plot

        return plot(args)
    _refuse_without_plot(args)
    found = [describe_model(folder)] if (folder := saved_model(args.name)) else find(args.name)
    if args.json:
        print_json(found)
        return 0
    for place, item in enumerate(found):
        print("\n" * (place > 0), end="")
        _print_item(item)
    return 0


def _refuse_without_plot(args: argparse.Namespace) -> None:
    """Refuse what only a picture has a use for.

    Raises:
        UsageError: there is such a thing.
    """
    given = [*args.overrides, *([f"--out {args.out}"] if args.out else [])]
    if given:
        raise UsageError(
            f"{given[0]} has no use without --plot. Type: perdure show {args.name} --plot {given[0]}"
        )


def _narrowed(kind: str, text: str, items: Sequence[Item]) -> list[Item]:
    """Keep those whose name contains a text.

    Raises:
        UnknownNameError: none does.
    """
    found = [item for item in items if text in item["name"]]
    if not found:
        starts = {item["name"].partition("/")[0] for item in items}
        raise UnknownNameError(
            f"None of the {kind} has '{text}' in its name.{did_you_mean(text, starts)} "
            f"`perdure ls {kind}` lists all."
        )
    return found


def methods() -> list[Item]:
    """Describe every method."""
    return [
        {
            "name": name,
            "summary": METHODS[name].traits.summary,
            "paper": METHODS[name].traits.paper,
            "heads": list(METHODS[name].traits.heads),
            "trains": METHODS[name].traits.trains,
            "sees_old_images": METHODS[name].traits.cumulative,
            "keeps_of_old_images": METHODS[name].traits.stores_statistics or "nothing",
        }
        for name in METHODS
    ]


def heads() -> list[Item]:
    """Describe every head."""
    return [
        {
            "name": name,
            "summary": _sentence(HEADS[name]),
            "closed_form": HEADS[name].closed_form,
        }
        for name in HEADS
    ]


def streams() -> list[Item]:
    """Describe every source of images."""
    at_hand = {"folder": None, **{name: known.at_hand for name, known in BENCHMARKS.items()}}
    return [
        {"name": name, "summary": _sentence(SOURCES[name]), "at_hand": at_hand.get(name, True)}
        for name in SOURCES
    ]


def transforms() -> list[Item]:
    """Describe every transform."""
    return [{"name": name, "summary": _sentence(TRANSFORMS[name])} for name in TRANSFORMS]


def backbones() -> list[Item]:
    """Describe the usual backbones."""
    return [
        {"name": entry.name, "summary": entry.about}
        | {k: v for k, v in dataclasses.asdict(entry).items() if k not in ("name", "about")}
        for entry in entries()
    ]


LISTS: dict[str, Callable[[], list[Item]]] = {
    "backbones": backbones,
    "heads": heads,
    "methods": methods,
    "presets": presets,
    "streams": streams,
    "transforms": transforms,
}

_SECTION = re.compile(r"^(?:Args|Raises|Returns|Attributes|Example):$", re.MULTILINE)
_SUMMARY = (["name", "summary"], lambda item: [item["name"], item["summary"]])
_COLUMNS: dict[str, tuple[list[str], Callable[[Item], list[str]]]] = {
    "backbones": (
        ["name", "px", "at hand", "about"],
        lambda item: [
            item["name"],
            str(item["img_size"]),
            "yes" if item["at_hand"] else "no",
            item["summary"],
        ],
    ),
    "heads": _SUMMARY,
    "methods": (
        ["name", "summary", "paper"],
        lambda item: [item["name"], item["summary"], item["paper"]],
    ),
    "presets": _SUMMARY,
    "streams": _SUMMARY,
    "transforms": _SUMMARY,
}


def find(name: str) -> list[Item]:
    """Return everything that has a name, each with its ``kind``.

    Raises:
        UnknownNameError: nothing has it.
    """
    if name == "run":
        return [{"kind": "run", "name": "run", "options": _options(*PARTS)}]
    if name in preset_names():
        return [describe_preset(name)]
    found = []
    kinds = {kind: listed for kind, listed in LISTS.items() if kind != "presets"}
    for kind, listed in kinds.items():
        for item in listed():
            if item["name"] == name:
                found.append({"kind": kind.removesuffix("s"), **item, **_more(kind, name)})
    if found:
        return found
    try:
        described = describe(name)
    except UnknownNameError:
        if Path(name).is_dir():
            raise UnknownNameError(
                f"'{name}' is a folder without a saved model. To see its images as a stream, type: "
                f"perdure show {name} --plot"
            ) from None
        if "/" in name:
            raise unknown_preset(name) from None
        known = {item["name"] for listed in kinds.values() for item in listed()}
        raise unknown_name("name", name, {*known, "run"}) from None
    fields = ("architecture", "img_size", "repository", "projection")
    return [
        {
            "kind": "backbone",
            "name": described.name,
            "summary": "a vision transformer of timm",
            **{field: getattr(described, field) for field in fields},
        }
    ]


def _more(kind: str, name: str) -> Item:
    """Return what `show` tells beyond `ls`."""
    if kind == "methods":
        method = METHODS[name]
        return {"about": _body(method), "options": _options(method.Config)}
    documented: dict[str, Any] = {"heads": HEADS, "streams": SOURCES, "transforms": TRANSFORMS}
    return {"about": _body(documented[kind][name])} if kind in documented else {}


def _options(*configs: type[Any]) -> list[Item]:
    return [dataclasses.asdict(option) for config in configs for option in options_of(config)]


def _sentence(thing: Any) -> str:
    """Return the first sentence of a docstring."""
    text = inspect.getdoc(thing) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "")


def _body(thing: Any) -> str:
    """Return a docstring without its first paragraph and without its sections."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[2]
    return _SECTION.split(text, maxsplit=1)[0].strip().replace("``", "")


def _print_item(item: Item) -> None:
    if item["kind"] == "model":
        print_model(item)
        return
    if item["kind"] == "preset":
        print_preset(item)
        return
    fields = [(item["kind"], item["name"])]
    skipped = ("kind", "name", "options", "about")
    fields += [
        (key.replace("_", " "), _words(value)) for key, value in item.items() if key not in skipped
    ]
    if item["kind"] == "run":
        print("Keys of every run, for a file and as key=value:")
    else:
        print_fields(fields)
    if item.get("about"):
        print(f"\n{item['about']}")
    if item.get("options"):
        print()
        options = [Option(**option) for option in item["options"]]
        print_columns(["key", "type", "default", "meaning"], map_options(options))
    elif item["kind"] == "method":
        print("\nNo options of its own.")
    if item["kind"] == "method":
        print("\nKeys of every run: perdure show run")


def map_options(options: Iterable[Option]) -> list[list[str]]:
    """Return the rows of a table of options."""
    return [[one.name, one.type, _words(one.default), one.about] for one in options]


def _words(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_words(one) for one in value) or "–"
    return str(value)
