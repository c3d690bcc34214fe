"""Text features of classes: from a file, from the cache, or from a text tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from perdure.atomic import atomic_write
from perdure.cache import expanded, home, sha256_of, text_dir
from perdure.errors import ConfigError, LanguageError, did_you_mean
from perdure.language.templates import captions
from perdure.language.tower import Tower

SAME = 1e-6
"""Two unit vectors whose cosine is closer to 1 than this are the same text."""


def text_features(
    source: str, templates: str, names: Sequence[str], *, fetch: bool = True
) -> Float[Tensor, "c e"] | None:
    """Return one unit vector per class, in the order of the names.

    What a tower computes is kept in the cache, by tower, captions and names.

    Args:
        source: ``MODEL/TAG`` of open_clip, or a ``.safetensors`` file.
        templates: the set of captions that a tower reads.
        names: names of the classes.
        fetch: whether a tower may be run; without, None is returned where it would have to be.

    Raises:
        LanguageError: texts or vectors are missing or cannot be used.
        ConfigError: a source that does not exist.
        OutputError: the cache cannot be written.
    """
    if _is_file(source):
        return _read(expanded(source), names)
    texts = captions(names, templates)
    tower = Tower.named(source)
    kept = home() / "text" / f"{_key(tower, texts)}.safetensors"
    if not kept.is_file():
        if not fetch:
            return None
        _write(text_dir() / kept.name, _embed(tower, texts))
    return _read(kept, names)


def _is_file(source: str) -> bool:
    """Tell a file of vectors from the name of a tower."""
    weights = Path(source.partition("/")[2])
    named = source.endswith(".safetensors")
    return named and (expanded(source).is_file() or not weights.is_file())


def _key(tower: Tower, texts: Mapping[str, tuple[str, ...]]) -> str:
    weights = Path(tower.weights)
    about = sha256_of(weights) if weights.is_file() else tower.weights
    return hashlib.sha256(json.dumps([tower.model, about, texts]).encode()).hexdigest()[:32]


def _embed(tower: Tower, texts: Mapping[str, tuple[str, ...]]) -> dict[str, Float[Tensor, "e"]]:
    """The mean over a class's captions of their unit vectors, made one itself."""
    vectors = tower.encode([text for several in texts.values() for text in several])
    means = vectors.unflatten(0, (len(texts), -1)).mean(1)
    return dict(zip(texts, F.normalize(means, dim=1), strict=True))


def _write(path: Path, vectors: Mapping[str, Tensor]) -> None:
    atomic_write(path, safetensors.torch.save({k: v.clone() for k, v in vectors.items()}))


def _read(path: Path, names: Sequence[str]) -> Float[Tensor, "c e"]:
    """Read the vector of each class from a file."""
    try:
        saved = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ConfigError(f"text_features='{path}': there is no such file.") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise LanguageError(
            f"'{path}' cannot be read as safetensors ({error}). If it is damaged, remove it and "
            "make it anew."
        ) from error
    missing = [name for name in names if name not in saved]
    if missing:
        raise LanguageError(
            f"'{path}' has no vector for the class '{missing[0]}' ({len(missing)} of {len(names)} "
            f"are missing).{did_you_mean(missing[0], saved)} It must hold one under each class's name."
        )
    vectors = [saved[name].float() for name in names]
    shapes = {tuple(vector.shape) for vector in vectors}
    if len(shapes) > 1 or len(vectors[0].shape) != 1:
        listed = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise LanguageError(f"'{path}' must hold vectors of one width; it has shapes {listed}.")
    return _checked(F.normalize(torch.stack(vectors), dim=1), names, path)


def _checked(rows: Float[Tensor, "c e"], names: Sequence[str], path: Path) -> Float[Tensor, "c e"]:
    """Refuse vectors that are not finite, zero, or equal for two classes."""
    for name, row in zip(names, rows, strict=True):
        if not bool(row.isfinite().all()) or not bool(row.any()):
            raise LanguageError(
                f"'{path}': the vector of the class '{name}' is zero or not finite."
            )
    refuse_alike(rows, names)
    return rows


def refuse_alike(rows: Float[Tensor, "c e"], names: Sequence[str], known: int = 0) -> None:
    """Refuse classes of one text.

    Args:
        rows: their unit vectors.
        names: in the same order.
        known: how many of the first have been let in before; they are not compared among themselves.

    Raises:
        LanguageError: two of them are equal within rounding.
    """
    alike = (rows @ rows.T).triu(1) > 1 - SAME
    alike[:, :known] = False
    if bool(alike.any()):
        place = alike.nonzero()[0].tolist()
        one, other = (names[index] for index in place)
        if place[0] < known:
            raise LanguageError(
                f"The class '{other}' has the text features of '{one}', which is known already: "
                f"nothing could tell them apart. Teach its images as '{one}', or under a name that "
                "says more."
            )
        raise LanguageError(
            f"The classes '{one}' and '{other}' have the same text features: nothing could tell them "
            "apart. Rename one, or take class_embeddings=mean."
        )
