"""What the documents show can be typed, runs (```python), and points at something."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.commands.run import presets_and_overrides
from perdure.cli.main import main, parser, read
from perdure.engine.config import load_config
from perdure.heads import HEADS
from perdure.methods import METHODS
from perdure.metrics import METRICS
from perdure.registry import Registry
from perdure.streams import SOURCES
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (document.name, text)
        for document in DOCUMENTS
        for found, text in _FENCED.findall(document.read_text())
        if found == language
    ]


def _helps(command: argparse.ArgumentParser) -> Iterator[str]:
    """What ``--help`` ends with, of a command and all its verbs."""
    yield command.epilog or ""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _helps(verb)


def _commands() -> list[str]:
    shown = [line.strip() for text in _helps(parser()) for line in text.splitlines()]
    return [re.split(r"\s{2,}", line)[0] for line in shown if line.startswith("perdure ")] + [
        line.partition("#")[0].removeprefix("$ ").strip()
        for _, text in _blocks("")
        for line in text.splitlines()
        if line.removeprefix("$ ").startswith("perdure ")
    ]


@pytest.fixture
def as_before() -> Iterator[None]:
    """Take back what a test registers."""
    registries: list[Registry[Any, Any]] = [METHODS, HEADS, SOURCES]
    before = [set(registry) for registry in registries]
    metrics = set(METRICS)
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry) - names:
            registry.unregister(name)
    for name in set(METRICS) - metrics:
        del METRICS[name]


@pytest.mark.long
@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(("document", "code"), _blocks("python"))
def test_python_examples_run(
    document: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, document, "exec", dont_inherit=True), {})


@pytest.mark.parametrize("command", _commands())
def test_commands_can_be_typed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "images"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.csv").touch()
    words = shlex.split(command)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match=r"^0$"):
            read(parser(), words)
        return
    args = read(parser(), words)
    if args.command == "run":
        presets, overrides = presets_and_overrides(args)
        for preset in presets:
            if not preset.endswith(".toml"):  # a file of one's own is not there
                load_config(preset, overrides)


def test_what_adds_something_is_short() -> None:
    lengths = [len(code.splitlines()) for page, code in _blocks("python") if page == "adding.md"]
    assert len(lengths) == 7
    assert max(lengths) < 40


@pytest.mark.long
@pytest.mark.usefixtures("as_before")
def test_a_module_of_ones_own_runs_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(code for page, code in _blocks("python") if page == "adding.md")
    (tmp_path / "my_lab.py").write_text(code.partition("\ncheck_method(")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.toml").write_text('method = "vpt_shallow"\ninput_prompts = 2\n')
    words = ["run", "mine.toml", *TINY, "tasks=2+8", "--quiet"]
    assert main(["--import", "my_lab", *words]) == 0
    assert main(["--import", "my_lab", "ls", "methods"]) == 0
    assert "vpt_shallow" in capsys.readouterr().out
    assert main(["--import", "my_lab", "show", "vpt_shallow"]) == 0
    assert "number of prompts that join the input" in capsys.readouterr().out
    search = ["--budget", "1", "--space", "input_prompts=1,2", "--out", "tuned", "--quiet"]
    assert main(["--import", "my_lab", "tune", *words[1:-1], *search]) == 0
    assert 'method = "vpt_shallow"' in Path("tuned/winner.toml").read_text()
    del sys.modules["my_lab"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [
        target
        for target in targets
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert missing == []


def test_every_method_has_a_page() -> None:
    titles = [page.read_text().splitlines()[0] for page in (ROOT / "docs" / "methods").glob("*.md")]
    assert [name for name in METHODS if not any(f"`{name}`" in title for title in titles)] == []


def test_every_document_is_linked() -> None:
    pages = {page.relative_to(ROOT).as_posix() for page in DOCUMENTS[1:]}
    texts = [(page.parent, page.read_text()) for page in DOCUMENTS]
    linked = {
        (folder / target).resolve().relative_to(ROOT).as_posix()
        for folder, text in texts
        for target in re.findall(r"\]\(([^)#:]+)\)", text)
    }
    assert pages - linked == set()
