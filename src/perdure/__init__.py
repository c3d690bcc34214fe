"""Continual learning of image classes with prompts on a frozen vision transformer.

Examples:
    >>> import perdure
    >>> sorted(perdure.__all__)
    ['ContinualClassifier', '__version__', 'load_config', 'make_config', 'run']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.engine.config import load_config, make_config
    from perdure.experiment import run
    from perdure.learner import ContinualClassifier
    from perdure.version import __version__
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["ContinualClassifier", "__version__", "load_config", "make_config", "run"]
