"""Methods: one file each, by name in `METHODS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.methods.base import Method
    from perdure.methods.catalog import METHODS
    from perdure.methods.options import MethodConfig
    from perdure.traits import Traits
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["METHODS", "Method", "MethodConfig", "Traits"]
