"""``perdure learn``: a model that grows with every folder of photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.atomic import alone, check_place
from perdure.cli.arguments import add_overrides, add_quiet
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command
from perdure.errors import ConfigError, OutputError
from perdure.wording import counted, listed, per_cent

if TYPE_CHECKING:
    from perdure.learner import ContinualClassifier, Lesson
    from perdure.learner.saved.contents import Sizes


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "learn", learn, rest="overrides", again="")
    command.argument("model", "MODEL", "folder of the model")
    command.argument("data", "PHOTOS", "a folder with a folder per class, a table, or hf:NAME")
    add_overrides(command, "of a new model; or, as lr, of this lesson")
    command.option("--method", "NAME", "of a new model; see `perdure ls methods`")
    command.option("--backbone", "NAME", "of a new model; see `perdure ls backbones`")
    command.option("--device", "NAME", "auto, cpu or cuda")
    command.flag("--skip-unreadable", "leave out images that cannot be decoded, and name them")
    add_quiet(command)


def learn(args: argparse.Namespace) -> int:
    """Teach a model the classes of some photos; a new model, or one that knows others already.

    Examples:
        perdure learn pets photos/monday          a folder per class; pets is made
        perdure learn pets photos/tuesday         new classes, or more images of old ones
        perdure learn pets photos.csv             a table of path and label
        perdure learn pets photos --method nsp2 epochs=8

        The model changes whole or not at all: until the lesson is done and verified, the old one
        stays. `perdure show pets` tells what it has learned, `perdure show METHOD` the keys.
    """
    folder = Path(args.model)
    values = _values(args)
    _check_folder(folder)
    _check_values(folder, values)

    from perdure.cli.progress import open_display

    # Of two lessons at the same time, first ones too, that of the first to be done would be lost.
    with alone(folder, "saving a model"):
        classifier = _open(folder, values)
        with open_display(classifier.settings(), quiet=args.quiet) as display:
            classifier.learn(args.data, on_event=display)
        sizes = classifier.save(folder)
    lesson = classifier.last_lesson_
    if args.json:
        print_json(_as_object(folder, classifier, lesson, sizes))
        return 0
    _print_lesson(lesson)
    print(f"model     {folder}: {len(classifier.classes_)} classes, {sizes}")
    print(f"predict   perdure predict {folder} IMAGE…")
    return 0


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """Keys of the command line, by flag or as ``key=value``."""
    from perdure.keys import parse_value
    from perdure.learner.settings import PARAMETERS

    flags = (*PARAMETERS, "skip_unreadable")
    values = {flag: value for flag in flags if (value := getattr(args, flag, None))}
    for text in args.overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{text}' is not of the form key=value, as epochs=2.")
        if key in values:
            raise ConfigError(f"{text}: {key} is named twice. Leave one out.")
        values[key] = parse_value(value)
    return values


def _open(folder: Path, values: dict[str, Any]) -> ContinualClassifier:
    """The model in the folder under these keys, or a new one where there is none yet."""
    from perdure.learner import ContinualClassifier
    from perdure.learner.saved.contents import is_model

    _check_folder(folder)
    known = ContinualClassifier.load(folder) if is_model(folder) else None
    classifier = known if known is not None else ContinualClassifier()
    parameters, more = _parted(values)
    options = {**(classifier.options or {}), **more} or None
    return classifier.set_params(**parameters, options=options)  # type: ignore[no-any-return]  # sklearn has no types


def _parted(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of a classifier's parameters, and of its options."""
    from perdure.learner.settings import PARAMETERS

    own = (*PARAMETERS, "calibration_fraction")
    parameters = {key: value for key, value in values.items() if key in own}
    if isinstance(parameters.get("heads"), str):
        parameters["heads"] = [parameters["heads"]]
    return parameters, {key: value for key, value in values.items() if key not in own}


def _check_values(folder: Path, values: dict[str, Any]) -> None:
    """Refuse keys and values that no lesson takes, before torch is imported."""
    from perdure.engine.config import PARTS
    from perdure.keys import defaults_of
    from perdure.learner.saved.contents import is_model, read_contents
    from perdure.learner.settings import METHOD, PARAMETERS, make_settings, parameters_of

    usual: dict[str, Any] = {**defaults_of(*PARTS), "method": METHOD, "heads": None}
    options: dict[str, Any] = {}
    if is_model(folder):
        usual, options = parameters_of(read_contents(folder).config())
    parameters, more = _parted(values)
    make_settings({key: {**usual, **parameters}[key] for key in PARAMETERS}, {**options, **more})


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a model, before anything is computed."""
    from perdure.learner.saved.contents import is_model
    from perdure.learner.saved.files import is_unfinished

    if is_model(folder):
        return
    if is_model(folder / "model"):
        raise OutputError(
            f"'{folder}' is a finished run, whose results would no longer be its model's. Learn on "
            f"from a copy: perdure save {folder} MODEL."
        )
    if check_place(folder) == folder and not is_unfinished(folder):
        raise OutputError(
            f"The folder '{folder}' is not empty and holds no model. Name the folder of a saved "
            "model, or one that does not exist yet."
        )


def _print_lesson(lesson: Lesson) -> None:
    images = sum(lesson.images.values())
    parts = []
    if lesson.new:
        new = counted(len(lesson.new), "new class", "new classes")
        parts.append(f"{new} ({listed(lesson.new, 8)})")
    more = [name for name in lesson.images if name not in lesson.new]
    if more:
        parts.append(f"more images of {listed(more, 8)}")
    held = f", {lesson.held_out} more held out" if lesson.held_out else ""
    print(f"learned   {' and '.join(parts)}: {counted(images, 'image')}{held}")
    for head, accuracy in lesson.accuracy.items():
        error = 100 * lesson.calibration_error[head]
        which = "those held out" if lesson.held_out else "images left out in turn"
        print(
            f"accuracy  {per_cent(accuracy)} of {which}, among all classes so far "
            f"({head}; calibration error {error:.1f} points)"
        )


def _as_object(
    folder: Path, classifier: ContinualClassifier, lesson: Lesson, sizes: Sizes
) -> dict[str, Any]:
    return {
        "model": str(folder),
        "classes": classifier.classes_.tolist(),
        "lesson": vars(lesson),
        "bytes": vars(sizes),
    }
