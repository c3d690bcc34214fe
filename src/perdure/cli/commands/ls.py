"""``perdure ls``: the backbones, data sets, heads, methods, presets and transforms there are."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from perdure.cli.output import in_words, print_columns, print_json
from perdure.cli.parsing import add_command
from perdure.errors import UnknownNameError, did_you_mean

Item = dict[str, Any]


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "ls", ls)
    command.argument("kind", "kind", ", ".join(LISTS), choices=tuple(LISTS), type=_current)
    command.argument("within", "TEXT", "only those with this text in their name", nargs="?")


def ls(args: argparse.Namespace) -> int:
    """List backbones, data, heads, methods, presets or transforms.

    Examples:
        perdure ls presets                 what there is per benchmark
        perdure ls presets cifar100        a line for each of a benchmark's
        perdure ls presets /iprompt        and of a method's
        perdure ls methods --json
    """
    if args.kind == "presets" and not (args.within or args.json):
        from perdure.cli.show_preset import print_benchmarks

        print_benchmarks()
        return 0
    items = LISTS[args.kind]()
    if args.within:
        items = _narrowed(args.kind, args.within, items)
    if args.json:
        print_json(items)
    elif args.kind == "backbones":
        from perdure.backbones.listing import USES

        for use, title in USES.items():
            if named := [item for item in items if item["use"] == use]:
                print(title)
                _print_items(args.kind, named)
                print()
        print("Any other model of timm may be named: docs/backbones.md says what runs on which.")
    else:
        _print_items(args.kind, items)
    return 0


def _print_items(kind: str, items: Sequence[Item]) -> None:
    columns = COLUMNS.get(kind, {"name": "name", "summary": "summary"})
    rows = [[in_words(item[key]) for key in columns.values()] for item in items]
    print_columns(list(columns), rows)


def _current(kind: str) -> str:
    """Return what a kind is called today."""
    return {"streams": "data"}.get(kind, kind)


def _narrowed(kind: str, text: str, items: Sequence[Item]) -> list[Item]:
    """Items whose name contains a text.

    Raises:
        UnknownNameError: there are none.
    """
    narrowed = [item for item in items if text in item["name"]]
    if not narrowed:
        starts = {item["name"].partition("/")[0] for item in items}
        raise UnknownNameError(
            f"None of the {kind} has '{text}' in its name.{did_you_mean(text, starts)} "
            f"`perdure ls {kind}` lists all."
        )
    return narrowed


def backbones() -> list[Item]:
    """Describe the usual backbones."""
    from perdure.backbones.listing import entries

    items = [dataclasses.asdict(entry) for entry in entries()]
    return [{"name": item.pop("name"), "summary": item.pop("about"), **item} for item in items]


def data() -> list[Item]:
    """Describe every data set, and every kind of images of one's own."""
    from perdure.streams import PUBLISHED, SOURCES

    at_hand = {"folder": None, **{name: known.at_hand for name, known in PUBLISHED.items()}}
    return [
        {"name": name, "summary": _sentence(SOURCES.doc(name)), "at_hand": at_hand.get(name, True)}
        for name in SOURCES
    ]


def heads() -> list[Item]:
    """Describe every head."""
    from perdure.heads import HEADS

    return [
        {
            "name": name,
            "summary": _sentence(HEADS.doc(name)),
            "closed_form": HEADS.declared[name].closed_form,
        }
        for name in HEADS
    ]


def methods() -> list[Item]:
    """Describe every method."""
    from perdure.methods import METHODS

    return [
        {
            "name": name,
            "summary": traits.summary,
            "paper": traits.paper,
            "heads": list(traits.heads),
            "trains": traits.trains,
            "sees_old_images": traits.cumulative,
            "keeps_of_old_images": traits.stores_statistics or "nothing",
        }
        for name, traits in ((name, METHODS.declared[name].traits) for name in METHODS)
    ]


def presets() -> list[Item]:
    """Describe every preset."""
    from perdure.cli.show_preset import describe_briefly
    from perdure.presets.sections import preset_names

    return [describe_briefly(name) for name in preset_names()]


def transforms() -> list[Item]:
    """Describe every transform."""
    from perdure.streams import TRANSFORMS

    return [{"name": name, "summary": _sentence(TRANSFORMS.doc(name))} for name in TRANSFORMS]


def _sentence(doc: str) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return doc.partition("\n\n")[0].replace("\n", " ").replace("``", "")


LISTS: dict[str, Callable[[], list[Item]]] = {
    "backbones": backbones,
    "data": data,
    "heads": heads,
    "methods": methods,
    "presets": presets,
    "transforms": transforms,
}

COLUMNS = {
    "backbones": {
        "name": "name",
        "px": "img_size",
        "M par.": "parameters",
        "GFLOP": "gflop",
        "at hand": "at_hand",
        "licence": "licence",
        "about": "summary",
    },
    "methods": {"name": "name", "summary": "summary", "paper": "paper"},
}
"""Heads of tables with the keys below them; of other kinds, name and summary."""
