"""Model card: training, images, accuracy and licence of a saved model."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from perdure.backbones.catalog import describe
from perdure.backbones.listing import licence_of
from perdure.engine.config import Config, neutral_keys, parts_of
from perdure.engine.model import Model
from perdure.errors import UnknownNameError
from perdure.keys import defaults_of
from perdure.learner.class_columns import ClassColumns
from perdure.learner.history import Lesson
from perdure.learner.saved.format import WEIGHTS, Description, without_place
from perdure.learner.separation import described_separations
from perdure.wording import listed, per_cent

_HERE = "path/to/this/folder"
_MOST_NAMES = 20
_TOLD_ELSEWHERE = {"method", "heads", "backbone"}
_MEANING = re.compile(r"([\\`*_\[\]<>|~&@:$!]|(?<=www)\.)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True)
class Publication:
    """Where a model is published.

    Attributes:
        repository: repository of the hub, as ``me/model``.
        licence: licence of the model, as the hub spells it.
    """

    repository: str
    licence: str = "unknown"


def make_card(
    model: Model, description: Description, sizes: str, publication: Publication | None = None
) -> bytes:
    """Write the card of a model; without a publication it names no repository."""
    traits, config = model.method.traits, model.config
    training = config.training
    dropped = model.learning_only if description.inference_only else frozenset()
    stored = [model.method.stores_statistics, *(h.stores_statistics for h in model.heads.values())]
    if model.anchors is not None:
        stored.append(model.anchors.stores_statistics)
    unknown = described_separations(description.history.separations)
    text: str = _template().render(
        licence=publication.licence if publication else "unknown",
        base_model=base_model(training.backbone, training.weights),
        backbone_licence=backbone_licence(model.backbone.name, training.weights),
        method=training.method,
        traits=traits,
        classes=len(ClassColumns(model.label_names, description.history.forgotten).names),
        heads=config.head_names,
        version=description.perdure,
        source=publication.repository if publication else _HERE,
        inference_only=description.inference_only,
        sizes=sizes,
        backbone=description.backbone,
        weights=description.files[WEIGHTS],
        preset=None if description.preset is None else Path(description.preset).name,
        options=_options(config, description),
        lessons=_lessons(model, description),
        unknown=unknown,
        negatives=any(row["negatives"] for rows in unknown.values() for row in rows),
        forgotten=listed(
            [model.label_names[k] for k in description.history.forgotten], _MOST_NAMES
        ),
        stored=[what for what in stored if what],
        left_out=", ".join(sorted({re.sub(r"\d+", "N", name) for name in dropped})),
    )
    return text.encode(errors="replace")


def escape(text: str) -> str:
    r"""Take the meaning that Markdown, its tables and HTML give to characters off them.

    >>> print(escape("a|b <i> *c*"))
    a\|b \<i\> \*c\*
    """
    return _MEANING.sub(r"\\\1", _CONTROL.sub(" ", str(text)))


@functools.cache
def _template() -> Any:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(md=escape, share=per_cent)
    source = resources.files("perdure.learner.saved") / "card.md.jinja"
    return environment.from_string(source.read_text("utf-8"))


def _lessons(model: Model, description: Description) -> list[dict[str, Any]]:
    """Rows of the table; the tasks alone where no lesson was noted."""
    lessons = description.history.lessons or tuple(
        Lesson(images={}, new=task.names) for task in model.tasks
    )
    return [
        {
            "new": listed(lesson.new, _MOST_NAMES) or "none",
            "images": sum(lesson.images.values()) if lesson.images else "not recorded",
            "accuracy": {
                head: per_cent(lesson.accuracy.get(head)) for head in model.config.head_names
            },
            "measured_on": lesson.held_out or lesson.left_out or "–",
        }
        for lesson in lessons
    ]


def _options(config: Config, description: Description) -> dict[str, str]:
    """Options that are not perdure's defaults; of files the names alone."""
    defaults = defaults_of(*parts_of(config.training.method))
    left_out = neutral_keys(description.config) | _TOLD_ELSEWHERE
    return {
        key: str(without_place(value))
        for key, value in description.config.items()
        if key not in left_out and value != defaults.get(key)
    }


def base_model(backbone: str, weights: str) -> str | None:
    """The backbone's repository on the hub, where its weights come from there."""
    try:
        repository = describe(backbone).repository
    except UnknownNameError:  # a backbone that was built by hand
        return None
    return repository.partition("@")[0] if repository and weights == "auto" else None


def backbone_licence(backbone: str, weights: str) -> str:
    """The licence of the backbone's weights where it is known, else where to look; never a guess."""
    if weights == "random":
        return "none needed, they are random"
    if weights != "auto":
        return f"unknown: see where {Path(weights).name} came from"
    base = base_model(backbone, weights)
    place = f"https://huggingface.co/{base}" if base else f"where '{backbone}' came from"
    return licence_of(backbone) or f"unknown: see {place}"
