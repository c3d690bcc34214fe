"""Public names of a package, loaded when they are first used: torch takes seconds to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` for what it imports for type checkers.

    The package writes its public names once, as imports that only a type checker runs::

        if TYPE_CHECKING:
            from perdure.methods.base import Method
        else:
            __getattr__, __dir__ = lazy_names(__name__)

    Args:
        package: ``__name__`` of the package.
    """
    module = sys.modules[package]
    homes = _homes(module)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *homes})


def _homes(module: ModuleType) -> dict[str, str]:
    """Return the module of every name imported under ``if TYPE_CHECKING``."""
    return {
        alias.name: str(line.module)
        for block in ast.parse(inspect.getsource(module)).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
