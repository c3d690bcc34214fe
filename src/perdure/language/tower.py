"""Text towers of open_clip, which is imported only where one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from perdure.errors import ConfigError, LanguageError, did_you_mean, first_line

BATCH = 256
_OTHERWISE = (
    "Give vectors made elsewhere by text_features=FILE.safetensors (one vector per class under the "
    "class's name), or take class_embeddings=mean."
)


@dataclass(frozen=True)
class Tower:
    """A text tower by name.

    Attributes:
        model: model of open_clip.
        weights: tag of published weights, or a file of them.
    """

    model: str
    weights: str

    @classmethod
    def named(cls, source: str) -> Tower:
        """Read ``MODEL/TAG`` and see that open_clip knows both.

        Raises:
            ConfigError: it does not.
            LanguageError: open_clip is not installed.
        """
        model, _, weights = source.partition("/")
        if not weights:
            raise ConfigError(
                f"text_features='{source}': name a model and its weights, as ViT-B-16/openai, or a "
                "file that ends in .safetensors."
            )
        open_clip = _open_clip()
        models = open_clip.list_models()
        if model not in models:
            raise ConfigError(
                f"text_features='{source}': open_clip has no model '{model}', and there is no such "
                f"file.{did_you_mean(model, models)} Known: open_clip.list_models(), as ViT-B-16."
            )
        tags = open_clip.list_pretrained_tags_by_model(model)
        if weights not in tags and not Path(weights).is_file():
            raise ConfigError(
                f"text_features='{source}': '{weights}' is neither weights of '{model}' nor a file."
                f"{did_you_mean(weights, tags)} Known: {', '.join(sorted(tags)) or 'none'}."
            )
        return cls(model, weights)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """Return the unit vector of every text, in float32; texts too long are cut.

        Raises:
            LanguageError: weights that cannot be fetched or that do not fit.
        """
        open_clip = _open_clip()
        published = open_clip.get_pretrained_cfg(self.model, self.weights)
        try:
            file = open_clip.download_pretrained(published) if published else self.weights
            tokenise = open_clip.get_tokenizer(self.model)
        except Exception as failure:  # whatever the hub's own network stack raises
            raise LanguageError(
                f"The weights of text tower '{self.model}/{self.weights}' are neither cached nor "
                f"can they be fetched ({first_line(failure)}). {_OTHERWISE}"
            ) from failure
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded
            try:
                tower = open_clip.create_model(
                    self.model,
                    pretrained=str(file),
                    # Left alone, open_clip runs OpenAI's weights with another activation.
                    **({"force_quick_gelu": True} if published.get("quick_gelu") else {}),
                ).eval()
            except Exception as failure:  # whatever reading and loading raise
                raise LanguageError(
                    f"'{file}' does not hold the weights of '{self.model}' "
                    f"({first_line(failure)}). Remove a damaged file so that it is fetched anew. "
                    f"{_OTHERWISE}"
                ) from failure
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        vectors = [F.normalize(tower.encode_text(tokenise(list(part))), dim=1) for part in parts]
        return torch.cat(vectors)


def _open_clip() -> Any:
    try:
        return importlib.import_module("open_clip")
    except ImportError as missing:
        raise LanguageError(
            "A text tower needs open_clip, which is not installed. Type: pip install "
            f"'perdure[clip]'. {_OTHERWISE}"
        ) from missing
