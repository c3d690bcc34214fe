"""Saved model: weights, classes, a card, and a description with their checksums."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path

import safetensors.torch

from perdure.atomic import alone
from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone
from perdure.engine.model import Model
from perdure.errors import CheckpointError
from perdure.learner.saved import format1
from perdure.learner.saved.card import Publication, make_card
from perdure.learner.saved.contents import Contents, Sizes, read_contents, read_description
from perdure.learner.saved.files import digest_of, replace_files
from perdure.learner.saved.format import (
    CARD,
    CLASSES,
    CONFIG,
    FORMAT,
    WEIGHTS,
    BackboneReference,
    Classes,
    Description,
    encode,
    seal,
    without_place,
)
from perdure.learner.state import LearnerState
from perdure.types import Task


def write_model(
    folder: Path,
    saved: LearnerState,
    *,
    inference_only: bool = False,
    publication: Publication | None = None,
) -> Sizes:
    """Write a model; whenever this is interrupted, the folder holds the old or the new one.

    The backbone's weights are not part of it. A model that came back without what only learning on
    reads stays without. Into a folder that is to be published no path of this machine is written.

    Raises:
        OutputError: the folder cannot be written; a model found there is whole.
    """
    model, history = saved.model, saved.history
    classes = Classes(
        model.label_names, tuple(task.classes for task in model.tasks), history.forgotten
    )
    state = {k: v.detach().cpu().contiguous() for k, v in model.state().items()}
    inference_only = inference_only or model.inference_only
    if inference_only:
        state = {k: v for k, v in state.items() if k not in model.learning_only}
    files = {
        WEIGHTS: safetensors.torch.save(state),
        CLASSES: encode(dataclasses.asdict(classes)),
    }
    # Where the images lay means nothing elsewhere, and tells of the person who had them.
    config = {**model.config.flat(), "data": model.config.stream.source}
    preset = model.config.preset
    if publication is not None:
        config = {k: without_place(v) for k, v in config.items()}
        preset = without_place(preset)
    description = Description(
        format=FORMAT,
        perdure=version("perdure"),
        backbone=BackboneReference(model.backbone.name, model.backbone.digest()),
        inference_only=inference_only,
        config=config,
        preset=preset,
        history=history,
        files={name: digest_of(data) for name, data in files.items()},
    )
    sizes = Sizes.of(model.config, {k: v.nbytes for k, v in state.items()})
    card = make_card(model, description, str(sizes), publication)
    with alone(folder, "saving a model"):
        replace_files(
            folder,
            (CONFIG, seal(description)),
            {**files, CARD: card},
            _checksums(folder),
            retired=(format1.CONFIG,),
        )
    return sizes


def read_model(
    folder: Path, backbone: FrozenViT | None = None, device: str = "auto"
) -> LearnerState:
    """Read what `write_model` wrote, now or in an earlier format; see `ContinualClassifier.load`.

    Raises:
        CheckpointError: a file is missing or damaged, the format is newer, or the backbone is another.
        BackboneError: the backbone cannot be built.
    """
    contents = read_contents(folder)
    config = contents.config(device=device)
    backbone = backbone or make_backbone(config)
    _check_backbone(folder, backbone, contents.description)
    model = Model(backbone, config)
    for task in _tasks(contents):
        model.start_task(task)
    tensors = contents.tensors(safetensors.torch.load)
    model.load(tensors, inference_only=contents.description.inference_only)
    return LearnerState(model, contents.description.history)


def _checksums(folder: Path) -> dict[str, str]:
    """Checksums of the files of the model in the folder; empty where there is none to be kept."""
    try:
        return read_description(folder).files
    except CheckpointError:
        return {}


def _check_backbone(folder: Path, backbone: FrozenViT, description: Description) -> None:
    expected, digest = description.backbone, backbone.digest()
    if digest != expected.sha256:
        raise CheckpointError(
            f"The model in '{folder}' was trained on weights of '{expected.name}' with sha256 "
            f"{expected.sha256[:12]}…, but those of '{backbone.name}' found here have "
            f"{digest[:12]}…. Give the same weights with backbone=…"
        )


def _tasks(contents: Contents) -> list[Task]:
    """The tasks to replay."""
    names, tasks, seen = contents.classes.classes, [], 0
    for index, labels in enumerate(contents.classes.tasks):
        if not all(0 <= label < len(names) for label in labels):
            raise CheckpointError(
                f"'{contents.folder / CLASSES}' names labels in task {index} that have no class."
            )
        seen = max(seen, *(label + 1 for label in labels))
        tasks.append(Task(index, labels, tuple(names[label] for label in labels), seen))
    return tasks
