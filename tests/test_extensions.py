"""Modules from outside the package, by name and by entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perdure import extensions
from perdure.errors import ConfigError

HEAD = """
from perdure.heads import HEADS, NearestMeanHead

@HEADS.register("{name}")
class Mine(NearestMeanHead):
    pass
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, and leave Python's own lists as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])


@pytest.mark.parametrize(
    ("files", "name", "text"),
    [
        ({}, "nowhere", "There is no module 'nowhere' in "),
        ({"my_methods.py": ""}, "my_metods", "Did you mean 'my_methods'? Go to its folder"),
        ({"my_methods.py": ""}, "./my_methods.py", "Give it as Python imports it, as my_methods."),
        ({}, "lab/methods.py", "as lab.methods."),
        ({}, "my-methods", "as my_methods."),
        (
            {"fails.py": "x = 1\nx.y\n"},
            "fails",
            "Module 'fails' cannot be imported: AttributeError: 'int' object has no attribute 'y' (",
        ),
        (
            {"needs.py": "import what_is_not_there\n"},
            "needs",
            "No module named 'what_is_not_there'",
        ),
        ({"wrong.py": "def f(:\n"}, "wrong", "cannot be imported: SyntaxError: "),
        (
            {"twice.py": HEAD.format(name="gaussian")},
            "twice",
            "head 'gaussian' is registered twice",
        ),
    ],
)
def test_what_cannot_be_imported(files: dict[str, str], name: str, text: str) -> None:
    for file, content in files.items():
        Path(file).write_text(content)
    with pytest.raises(ConfigError) as caught:
        extensions.load([name])
    assert text in str(caught.value)
    if name in ("fails", "twice"):
        line = 2 if name == "fails" else 4
        assert str(caught.value).endswith(f"({Path(f'{name}.py').resolve()}, line {line})")


def test_installed_packages_are_extensions_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site" / "lab-1.0.dist-info").mkdir(parents=True)
    about = tmp_path / "site" / "lab-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{extensions.GROUP}]\nlab = lab_methods\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ConfigError, match="'lab_methods' of the installed package 'lab' cannot be"):
        extensions.load()
    (tmp_path / "site" / "lab_methods.py").write_text("there = True\n")
    monkeypatch.delitem(sys.modules, "lab_methods", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")  # forgets what Python has not found before
    extensions.load()
    assert sys.modules["lab_methods"].there
