"""Continual learning of image classes with prompts on a frozen vision transformer.

Example:
    >>> import perdure
    >>> sorted(perdure.__all__)
    ['ContinualClassifier', '__version__', 'load_config', 'make_config', 'run']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.engine.config import load_config, make_config
    from perdure.experiment import run
    from perdure.learner import ContinualClassifier

    __version__: str

__all__ = ["ContinualClassifier", "__version__", "load_config", "make_config", "run"]

_HOMES = {
    "ContinualClassifier": "perdure.learner",
    "load_config": "perdure.engine.config",
    "make_config": "perdure.engine.config",
    "run": "perdure.experiment",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: torch takes seconds to import."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("perdure")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'perdure' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
