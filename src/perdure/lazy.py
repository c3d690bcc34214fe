"""Public names of a package, loaded when they are first used: torch takes seconds to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` for what it imports for type checkers.

    The package writes its public names once, as imports that only a type checker runs::

        if TYPE_CHECKING:
            from perdure.methods.base import Method
        else:
            __getattr__, __dir__ = lazy_names(__name__)
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        home = _homes(module).get(name)
        if home is None:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(importlib.import_module(home), name)
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *_homes(module)})


@cache
def _homes(module: ModuleType) -> dict[str, str]:
    """Return the module of every name imported under ``if TYPE_CHECKING``."""
    import ast  # noqa: PLC0415  --help needs none of the names, and must not wait

    return {
        alias.name: str(line.module)
        for block in ast.parse(Path(str(module.__file__)).read_text("utf-8")).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
