"""Language: from the names of classes to text features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.language.features import text_features
    from perdure.language.templates import TEMPLATES, captions, phrase
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["TEMPLATES", "captions", "phrase", "text_features"]
