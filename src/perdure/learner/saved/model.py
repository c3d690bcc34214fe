"""Saved model: weights, classes, a card, and a description with their checksums."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch

from perdure.atomic import alone
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.build import make_backbone
from perdure.engine.model import Model
from perdure.errors import CheckpointError, OutputError, PerdureError
from perdure.learner.forgetting import forget
from perdure.learner.renaming import rename
from perdure.learner.saved import format1, versions
from perdure.learner.saved.card import Publication, make_card
from perdure.learner.saved.contents import Contents, Sizes, read_contents
from perdure.learner.saved.files import digest_of
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


@dataclass(frozen=True)
class _Encoded:
    """The bytes of a model's files.

    Attributes:
        pointer: content of the file that describes the others.
        files: the others.
        sizes: bytes of its tensors.
    """

    pointer: bytes
    files: dict[str, bytes]
    sizes: Sizes


def write_model(
    folder: Path,
    saved: LearnerState,
    *,
    inference_only: bool = False,
    publication: Publication | None = None,
    keep_versions: int = 0,
    replace: bool = False,
) -> Sizes:
    """Write a model; whenever this is interrupted, the folder holds the old or the new one.

    The backbone's weights are not part of it. A model that came back without what only learning on
    reads stays without. Into a folder that is to be published no path of this machine is written.
    The model that was there is kept as a version, unless this one stands in its place (``replace``);
    in all versions a class that is forgotten now is forgotten too.

    Raises:
        OutputError: the folder cannot be written, or has files of something else that would be
            replaced; a model found there is whole.
    """
    _refuse_foreign(folder)
    encoded = _encode(saved, inference_only, publication)
    with alone(folder, "saving a model"):
        if keep_versions and not replace:
            versions.keep(folder, encoded.pointer, _classes_of(saved), saved.history)
        versions.put(folder, encoded.pointer, encoded.files)
        _forget_in_versions(folder, saved)
        versions.prune(folder, keep_versions)
    return encoded.sizes


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files that a model has, but of something else; a damaged one is repaired."""
    names = (CONFIG, CLASSES, WEIGHTS, CARD, format1.CONFIG, versions.FOLDER)
    taken = [name for name in names if (folder / name).exists()]
    if not taken or {CLASSES, WEIGHTS} <= set(taken):
        return
    for pointer, word in ((CONFIG, b'"perdure"'), (format1.CONFIG, b'"format"')):
        with contextlib.suppress(OSError):
            if word in (folder / pointer).read_bytes():
                return
    raise OutputError(
        f"The folder '{folder}' holds no model, and its {taken[0]} would be replaced by one. Name "
        "the folder of a saved model, or one that does not exist yet."
    )


def _encode(
    saved: LearnerState, inference_only: bool, publication: Publication | None = None
) -> _Encoded:
    model, history = saved.model, saved.history
    classes = _classes_of(saved)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state().items()}
    inference_only = inference_only or model.inference_only
    if inference_only:
        state = {k: v for k, v in state.items() if k not in model.learning_only}
    files = {WEIGHTS: safetensors.torch.save(state), CLASSES: encode(dataclasses.asdict(classes))}
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
    return _Encoded(seal(description), {**files, CARD: card}, sizes)


def _classes_of(saved: LearnerState) -> Classes:
    tasks = tuple(task.classes for task in saved.model.tasks)
    return Classes(saved.model.label_names, tasks, saved.history.forgotten)


def _forget_in_versions(folder: Path, saved: LearnerState) -> None:
    """Forget in every kept version what is forgotten now; what cannot be rewritten is removed."""
    backbone = saved.model.backbone
    if not saved.history.forgotten:
        return
    for path in versions.paths(folder):
        try:
            version = versions.read_version(path)
            held = versions.still_held(version.contents, _classes_of(saved), saved.history)
            if not held:
                continue
            state = state_of(version.contents, backbone, "auto")
            for name, label in held.items():
                now = saved.model.label_names[label]
                # Another class of the version is called so where two were merged since.
                taken = now in state.columns
                state = state if taken else rename(state, name, now)
                state = forget(state, name if taken else now)[0]
            encoded = _encode(state, inference_only=False)
            versions.write(path, encoded.pointer, encoded.files)
            os.utime(path, (version.replaced, version.replaced))
        except PerdureError:
            path.unlink()


def read_model(
    folder: Path, backbone: FrozenBackbone | None = None, device: str = "auto"
) -> LearnerState:
    """Read what `write_model` wrote, now or in an earlier format; see `ContinualClassifier.load`.

    Raises:
        CheckpointError: a file is missing or damaged, the format is newer, or the backbone is another.
        BackboneError: the backbone cannot be built.
    """
    return state_of(read_contents(folder), backbone, device)


def state_of(contents: Contents, backbone: FrozenBackbone | None, device: str) -> LearnerState:
    """The classifier's state that some contents are of.

    Raises:
        CheckpointError: the contents do not fit together, or the backbone is another.
        BackboneError: the backbone cannot be built.
    """
    config = contents.config(device=device)
    backbone = backbone or make_backbone(config)
    _check_backbone(contents.folder, backbone, contents.description)
    model = Model(backbone, config)
    for task in _tasks(contents):
        model.start_task(task)
    tensors = contents.tensors(safetensors.torch.load)
    model.load(tensors, inference_only=contents.description.inference_only)
    return LearnerState(model, contents.description.history)


def _check_backbone(folder: Path, backbone: FrozenBackbone, description: Description) -> None:
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
