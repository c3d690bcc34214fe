"""The folder of a saved model: weights, classes, a card, and a description that vouches for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone
from perdure.engine.config import Config, make_config
from perdure.engine.model import Model, learning_only
from perdure.errors import CheckpointError, ConfigError
from perdure.learner.history import History
from perdure.learner.saved import format1
from perdure.learner.saved.card import Publication, make_card
from perdure.learner.saved.files import alone, digest_of, read_bytes, read_file, replace_files
from perdure.learner.saved.format import (
    CARD,
    CLASSES,
    CONFIG,
    FORMAT,
    WEIGHTS,
    BackboneReference,
    Classes,
    Description,
    build,
    encode,
    parse,
    seal,
    unseal,
    without_place,
)
from perdure.types import Task

KILO = 1000


@dataclass(frozen=True)
class Saved:
    """What a folder gives back.

    Attributes:
        model: `Model.inference_only` tells whether it can learn on.
        history: its lessons; empty where it was saved before there was one.
    """

    model: Model
    history: History


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's tensors.

    Attributes:
        prediction: what predictions read.
        learning: what only learning on reads; 0 where it was left out, or where there is nothing.
    """

    prediction: int
    learning: int

    def __str__(self) -> str:
        return (
            f"{_amount(self.prediction + self.learning)} ({_amount(self.prediction)} to predict, "
            f"{_amount(self.learning)} more to learn on)"
        )


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds a saved model, of whatever format."""
    return any((folder / name).is_file() for name in (CONFIG, format1.CONFIG))


def write_model(
    folder: Path,
    model: Model,
    history: History | None = None,
    *,
    inference_only: bool = False,
    publication: Publication | None = None,
) -> Sizes:
    """Write a model; whenever this is interrupted, the folder holds the old or the new one.

    Args:
        folder: created if need be; a model found there is replaced.
        model: the backbone's weights are not part of it.
        history: what it has been through.
        inference_only: leave out what only learning on reads. A model that came back without stays
            without.
        publication: where the folder goes, if it is to be published: then no path of this machine
            is written into it.

    Returns:
        How large it is.

    Raises:
        OutputError: the folder cannot be written; a model found there is whole.
    """
    history = history or History()
    state = {k: v.detach().cpu().contiguous() for k, v in model.state().items()}
    inference_only = inference_only or model.inference_only
    if inference_only:
        state = {k: v for k, v in state.items() if k not in model.learning_only}
    files = {
        WEIGHTS: safetensors.torch.save(state),
        CLASSES: encode(dataclasses.asdict(_classes(model, history))),
    }
    # Where the images lay means nothing elsewhere, and tells of the person who had them.
    config = {k: v for k, v in model.config.flat().items() if k != "path"}
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
    sizes = _sizes(model.config, state)
    card = make_card(model, description, str(sizes), publication)
    with alone(folder):
        replace_files(
            folder,
            (CONFIG, seal(description)),
            {**files, CARD: card},
            _present(folder),
            retired=(format1.CONFIG,),
        )
    return sizes


def read_model(folder: Path, backbone: FrozenViT | None = None, device: str = "auto") -> Saved:
    """Read what `write_model` wrote, now or in an earlier format.

    Args:
        folder: the model's folder.
        backbone: the backbone it was trained on; None builds it from the configuration.
        device: where to run, when the backbone is built here.

    Raises:
        CheckpointError: a file is missing or damaged, the format is newer, or the backbone is another.
        BackboneError: the backbone cannot be built.
    """
    description, classes, data = _read(folder)
    path = _pointer(folder)
    try:
        config = make_config({**description.config, "device": device}, description.preset)
    except ConfigError as error:
        raise CheckpointError(
            f"The configuration in '{path}' cannot be used: {error} A method of your own must be "
            "imported before its model is loaded."
        ) from error
    backbone = backbone or make_backbone(config)
    _check_backbone(folder, backbone, description)
    model = Model(backbone, config)
    for task in _tasks(folder / CLASSES, classes):
        model.start_task(task)
    model.load(_tensors(folder, data), inference_only=description.inference_only)
    return Saved(model, description.history)


def read_description(folder: Path) -> Description:
    """Read what the folder says of itself, without its weights.

    Raises:
        CheckpointError: it is missing or damaged, or the format is newer.
    """
    return _read_pointer(folder)[0]


@dataclass(frozen=True)
class Described:
    """What a folder says of its model.

    Attributes:
        description: content of ``config.json``.
        heads: that are evaluated.
        known: names of the classes that it tells, in order of arrival.
        forgotten: names of those that were removed again.
        sizes: bytes of its tensors.
    """

    description: Description
    heads: tuple[str, ...]
    known: tuple[str, ...]
    forgotten: tuple[str, ...]
    sizes: Sizes


def describe_model(folder: Path) -> Described:
    """Tell what is in a folder, all of its files verified; the backbone is not needed.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer.
    """
    description, classes, data = _read(folder)
    config = make_config(description.config)
    names = tuple(enumerate(classes.classes))
    return Described(
        description,
        config.head_names,
        tuple(dict.fromkeys(name for label, name in names if label not in classes.forgotten)),
        tuple(dict.fromkeys(name for label, name in names if label in classes.forgotten)),
        _sizes(config, _tensors(folder, data)),
    )


def sizes(folder: Path | str) -> Sizes:
    """Tell how large a saved model is, and what of it serves learning on alone.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer.
    """
    folder = Path(folder)
    description, _, data = _read(folder)
    return _sizes(make_config(description.config), _tensors(folder, data))


def _read(folder: Path) -> tuple[Description, Classes, bytes]:
    """Read and verify all files; once more where another process has saved in the meantime."""
    path = _pointer(folder)
    before = read_bytes(path)
    try:
        description, classes = _read_pointer(folder)
        if classes is None:
            data = read_file(folder, CLASSES, description.files[CLASSES])
            classes = build(Classes, folder / CLASSES, parse(folder / CLASSES, data))
        return description, classes, read_file(folder, WEIGHTS, description.files[WEIGHTS])
    except CheckpointError:
        if read_bytes(_pointer(folder)) == before:
            raise
        return _read(folder)


def _read_pointer(folder: Path) -> tuple[Description, Classes | None]:
    """The description; with the classes where an old format held them in the same file."""
    path = _pointer(folder)
    if path.name == format1.CONFIG:
        return format1.read_first(folder)
    description = unseal(path, read_bytes(path))
    if description.files.keys() != {CLASSES, WEIGHTS}:
        raise CheckpointError(f"'{path}' describes other files than {CLASSES} and {WEIGHTS}.")
    return description, None


def _pointer(folder: Path) -> Path:
    """The file that describes the others."""
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder '{folder}'. Name the folder of a saved model.")
    old = folder / format1.CONFIG
    return old if old.exists() and not (folder / CONFIG).exists() else folder / CONFIG


def _present(folder: Path) -> dict[str, str]:
    """Checksums of the files of the model in the folder; empty where there is none to be kept."""
    try:
        return read_description(folder).files
    except CheckpointError:
        return {}


def _check_backbone(folder: Path, backbone: FrozenViT, description: Description) -> None:
    expected, found = description.backbone, backbone.digest()
    if found != expected.sha256:
        raise CheckpointError(
            f"The model in '{folder}' was trained on weights of '{expected.name}' with sha256 "
            f"{expected.sha256[:12]}…, but those of '{backbone.name}' found here have "
            f"{found[:12]}…. Give the same weights with backbone=…"
        )


def _classes(model: Model, history: History) -> Classes:
    return Classes(
        model.label_names, tuple(task.classes for task in model.tasks), history.forgotten
    )


def _tasks(path: Path, classes: Classes) -> list[Task]:
    """The tasks to replay."""
    names, tasks, seen = classes.classes, [], 0
    for index, labels in enumerate(classes.tasks):
        if not all(0 <= label < len(names) for label in labels):
            raise CheckpointError(f"'{path}' names labels in task {index} that have no class.")
        seen = max(seen, *(label + 1 for label in labels))
        tasks.append(Task(index, labels, tuple(names[label] for label in labels), seen))
    return tasks


def _tensors(folder: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"'{folder / WEIGHTS}' is no safetensors file ({error}).") from None


def _sizes(config: Config, state: Mapping[str, Tensor]) -> Sizes:
    amounts = {name: value.numel() * value.element_size() for name, value in state.items()}
    learning = sum(amounts[name] for name in learning_only(config, amounts))
    return Sizes(sum(amounts.values()) - learning, learning)


def _amount(count: int) -> str:
    """Bytes for people, in powers of 1000.

    >>> _amount(999), _amount(1_500), _amount(70_700_000)
    ('999 bytes', '1.5 kB', '70.7 MB')
    """
    if count < KILO:
        return f"{count} bytes"
    return f"{count / KILO:.1f} kB" if count < KILO**2 else f"{count / KILO**2:.1f} MB"
