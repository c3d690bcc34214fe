"""MkDocs hook: pages made from the package (reference, keys, commands), and links into its source."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from perdure.cli.main import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "perdure"
# Commands are documented by their help, presets by `perdure show`.
LEFT_OUT = ("perdure.cli", "perdure.presets", "perdure.__main__")
# What people look for first is how to use it: the guide goes before the reference in searches.
FRONT_MATTER = "---\nsearch:\n  boost: 0.5\n---\n"

log = logging.getLogger("mkdocs.plugins.perdure")  # a warning there fails a strict build


class ExampleSections(griffe.Extension):
    """Takes ``Example:`` in a docstring for the section that is called ``Examples:``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE
            )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages made here to the navigation."""
    config.nav = [
        *(config.nav or []),
        {"Reference": ["keys.md", "commands.md", {"Python": _entries(_package())}, "changelog.md"]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from the package, and the changelog."""
    for module in _modules(_package()):
        files.append(File.generated(config, _page(module), content=_module(module)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add keys and commands to their pages; turn links into the repository into links within."""
    markdown += _LISTS.get(page.file.src_uri, str)()
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(config.docs_dir):
            return match[0]
        if not path.exists():
            log.warning("%s: link to %s, which does not exist", page.file.src_uri, target)
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
        return f"[{text}][{name}]" if name in _documented() else text

    return re.sub(r"\[([^]]+)\]\((\.\./[^)#]+)\)", link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep source code out of the search; warn of lists and tables that became running text."""
    for lost in re.findall(r"<p>(?:(?!</p>).)*\n((?:- |\| |\d+\. ).*)", html):
        log.warning("%s: an empty line is missing before '%s'", page.file.src_uri, lost)
    return html.replace(
        '<details class="mkdocstrings-source">',
        '<details class="mkdocstrings-source" data-search-exclude>',
    )


def _package() -> griffe.Module:
    """Return the package as read from its source; nothing of it is imported."""
    if not _LOADED:
        package = griffe.load("perdure", search_paths=[PACKAGE.parent], resolve_aliases=True)
        assert isinstance(package, griffe.Module)
        _LOADED.append(package)
    return _LOADED[0]


_LOADED: list[griffe.Module] = []


def _inner(module: griffe.Module) -> list[griffe.Module]:
    """Return the public modules directly under one, packages first."""
    inner = [
        member
        for name, member in sorted(module.modules.items())
        if not member.is_alias and not name.startswith("_") and member.path not in LEFT_OUT
    ]
    return sorted(inner, key=lambda member: not member.is_init_module)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for inner in _inner(module):
        yield from _modules(inner)


def _documented() -> set[str]:
    return {module.path for module in _modules(_package())}


def _page(module: griffe.Module) -> str:
    path = "/".join(["reference", *module.path.split(".")[1:]])
    return f"{path}/index.md" if module.is_init_module else f"{path}.md"


def _entries(module: griffe.Module) -> list[Any]:
    """Return the navigation below a module."""
    if not module.is_init_module:
        return [{module.name: _page(module)}]
    inner = [
        {each.name: _entries(each)} if each.is_init_module else {each.name: _page(each)}
        for each in _inner(module)
    ]
    return [_page(module), *inner]


def _module(module: griffe.Module) -> str:
    """Return the page of a module; that of a package lists what it exports and holds."""
    own = [name for name, member in module.members.items() if not member.is_alias]
    members = [name for name in own if module[name].is_public and not module[name].is_module]
    text = f"{FRONT_MATTER}\n::: {module.path}\n    options:\n"
    text += "      heading_level: 1\n      show_root_full_path: true\n"
    if not module.is_init_module:
        return text
    text += f"      members: {json.dumps(members) if members else 'false'}\n"
    exported = [module[name] for name in sorted(map(str, module.exports or []))]
    rows = [_row(each) for each in exported if each.is_alias and not each.is_module]
    text += _table("Public names", ("name", ""), rows)
    return text + _table("Modules", ("module", ""), [_row(each) for each in _inner(module)])


def _row(thing: griffe.Object | griffe.Alias) -> tuple[str, str]:
    """Return a link to where something is documented, and the first paragraph of its docstring."""
    text = thing.docstring.value if thing.docstring else ""
    target = thing.canonical_path if text else thing.canonical_path.rpartition(".")[0]
    return f"[`{thing.name}`][{target}]", " ".join(text.partition("\n\n")[0].split())


def _table(title: str, heads: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    """Return a section with a table of two columns; nothing where there are no rows."""
    if not rows:
        return ""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (heads, ("---", "---"), *rows)]
    lines = [f"| {left} | {right} |" for left, right in cells]
    return f"\n## {title}\n\n" + "\n".join(lines) + "\n"


def _printed(*words: str) -> str:
    """Return what a command prints."""
    os.environ["COLUMNS"] = "96"  # the width of help texts
    with contextlib.redirect_stdout(io.StringIO()) as text:
        main(words)
    return text.getvalue()


def _keys() -> str:
    """Return a table of the keys of every run, and of those of each method."""
    text = _options("Of every run", json.loads(_printed("show", "run", "--json")))
    for method in json.loads(_printed("ls", "methods", "--json")):
        shown = json.loads(_printed("show", method["name"], "--json"))
        text += _options(f"Of `{method['name']}`", shown)
    return text


def _options(title: str, items: list[dict[str, Any]]) -> str:
    """Return a table of keys, each with its type and default under its meaning."""
    rows = [
        (
            f"`{option['name']}`",
            f"{option['about']}<br>*{option['type']};* `{json.dumps(option['default'])}`",
        )
        for item in items
        for option in item.get("options", [])
    ]
    return _table(title, ("key", "meaning, type, default"), rows)


def _commands(*words: str) -> str:
    """Return the help of a command and of those below it."""
    help_ = _printed(*words, "--help")
    text = f"\n{'#' * (1 + len(words))} {' '.join(('perdure', *words))}\n" if words else ""
    text += f"\n```text\n{help_.strip()}\n```\n"
    below = re.findall(r"^ {4}([a-z]+)(?: {2,}|$)", help_, re.MULTILINE)
    return text + "".join(_commands(*words, name) for name in below)


_LISTS = {"keys.md": _keys, "commands.md": _commands}
