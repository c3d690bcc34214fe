"""``perdure show``: what a name stands for, of whatever kind, and what a saved model knows."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from perdure.cli.arguments import add_overrides, saved_model
from perdure.cli.commands.ls import LISTS, Item
from perdure.cli.config_keys import describe_keys
from perdure.cli.output import in_words, print_columns, print_fields, print_json
from perdure.cli.parsing import UsageError, add_command
from perdure.errors import UnknownNameError, unknown_name

_SECTION = re.compile(r"^(?:Args|Raises|Returns|Attributes|Example):$", re.MULTILINE)


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "show", show, rest="overrides")
    command.argument(
        "name", "NAME|MODEL", "see `perdure ls`, or a model's folder; to plot, images of yours too"
    )
    add_overrides(command, "of the stream to plot")
    command.flag("--plot", "draw how many images of which classes every task has")
    command.option("--out", "FILE.png", "of the plot; default: NAME.png")


def show(args: argparse.Namespace) -> int:
    """Explain a preset, method, head, data set, transform, backbone or saved model, or draw a stream.

    Examples:
        perdure show nsp2                  a method with its options
        perdure show cifar100-10s/nsp2     a preset: every value, and what was published
        perdure show run                   the keys of every run
        perdure show clip_vit_base_patch16
        perdure show pets                 a saved model, or the one that a run has left
        perdure show digits --plot tasks=B4-Inc2 imbalance=50   what every task brings, drawn
        perdure show photos.csv --plot increment=domains --out photos.png
    """
    if args.plot:
        from perdure.cli.show_stream import plot

        return plot(args)
    unused = [*args.overrides, *([f"--out {args.out}"] if args.out else [])]
    if unused:
        raise UsageError(
            f"{unused[0]} has no use without --plot. Type: perdure show {args.name} --plot {unused[0]}"
        )
    items = find(args.name)
    if args.json:
        print_json(items)
        return 0
    for place, item in enumerate(items):
        print("\n" * (place > 0), end="")
        _print(item)
    return 0


def find(name: str) -> list[Item]:
    """Return everything that has a name, each with its ``kind``.

    Raises:
        UnknownNameError: nothing has it.
    """
    from perdure.presets.sections import preset_names

    if folder := saved_model(Path(name)):
        from perdure.cli.show_model import describe_model

        return [describe_model(folder)]
    if name == "run":
        from perdure.engine.config import PARTS

        return [{"kind": "run", "name": "run", "options": _keys(*PARTS)}]
    if name in preset_names():
        from perdure.cli.show_preset import describe_preset

        return [describe_preset(name)]
    items = {kind: of_kind() for kind, of_kind in LISTS.items() if kind != "presets"}
    found = [
        {"kind": kind.removesuffix("s"), **item, **_more(kind, name)}
        for kind, listed in items.items()
        for item in listed
        if item["name"] == name
    ]
    return found or [_backbone_of_timm(name, {item["name"] for i in items.values() for item in i})]


def _backbone_of_timm(name: str, known: set[str]) -> Item:
    """Describe a backbone that is not listed.

    Raises:
        UnknownNameError: there is none of this name; the error knows of the other kinds.
    """
    from perdure.backbones.catalog import describe, is_of_timm
    from perdure.presets.sections import unknown_preset

    try:
        described = describe(name) if is_of_timm(name) else None
    except UnknownNameError:
        described = None
    if described is not None:
        keys = ("architecture", "img_size", "repository", "projection")
        about = {"name": described.name, "summary": "a model of timm"}
        return {"kind": "backbone", **about, **{key: getattr(described, key) for key in keys}}
    if Path(name).is_dir():
        raise UnknownNameError(
            f"'{name}' is a folder without a saved model. To see its images as a stream, type: "
            f"perdure show {name} --plot"
        )
    raise unknown_preset(name) if "/" in name else unknown_name("name", name, {*known, "run"})


def _more(kind: str, name: str) -> Item:
    """Return what `show` tells beyond `ls`."""
    if kind == "backbones":
        return {}
    from perdure.heads import HEADS
    from perdure.methods import METHODS
    from perdure.registry import Registry
    from perdure.streams import SOURCES, TRANSFORMS

    about: dict[str, Registry[Any, Any]] = {
        "heads": HEADS,
        "methods": METHODS,
        "data": SOURCES,
        "transforms": TRANSFORMS,
    }
    more: Item = {"about": _body(about[kind].doc(name))}
    if kind in ("heads", "methods"):
        more["options"] = _keys(about[kind].declared[name].Config)
    return more


def _keys(*configs: type[Any]) -> list[Item]:
    return [dataclasses.asdict(key) for key in describe_keys(*configs)]


def _body(doc: str) -> str:
    """Return a docstring without its first paragraph and without its sections."""
    text = doc.partition("\n\n")[2]
    return _SECTION.split(text, maxsplit=1)[0].strip().replace("``", "")


def _print(item: Item) -> None:
    kind = item["kind"]
    if kind == "model":
        from perdure.cli.show_model import print_model

        print_model(item)
        return
    if kind == "preset":
        from perdure.cli.show_preset import print_preset

        print_preset(item)
        return
    if kind == "run":
        print("Keys of every run, for a file and as key=value:")
    else:
        fields = [(kind, item["name"])]
        skipped = ("kind", "name", "options", "about")
        fields += [(k.replace("_", " "), in_words(v)) for k, v in item.items() if k not in skipped]
        print_fields(fields)
    if item.get("about"):
        print(f"\n{item['about']}")
    if item.get("options"):
        print()
        rows = [[in_words(value) for value in key.values()] for key in item["options"]]
        print_columns(["key", "type", "default", "meaning"], rows)
    elif kind in ("head", "method"):
        print("\nNo options of its own.")
    if kind == "method":
        print("\nKeys of every run: perdure show run")
