"""Language: from the names of classes to text features."""

from perdure.language.captions import TEMPLATES, captions, phrase
from perdure.language.features import text_features

__all__ = ["TEMPLATES", "captions", "phrase", "text_features"]
