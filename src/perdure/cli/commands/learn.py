"""``perdure learn`` and ``perdure eval``: a model that grows with every folder of photos."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from perdure.atomic import check_place
from perdure.cli.commands.predict import model_folder
from perdure.cli.output import print_json
from perdure.cli.progress import open_display
from perdure.errors import ConfigError, OutputError
from perdure.keys import parse_value
from perdure.learner import ContinualClassifier
from perdure.learner.history import Lesson
from perdure.learner.saved.contents import Sizes, is_model
from perdure.learner.saved.files import alone
from perdure.learner.settings import PARAMETERS
from perdure.wording import counted, listed, per_cent

FLAGS = ("method", "backbone", "device")
"""Parameters with a flag of their own."""
_SHOWN = 8
"""Names of classes in the summary of a lesson."""


def learn(args: argparse.Namespace) -> int:
    """Do ``perdure learn``."""
    folder = Path(args.model)
    given = _given(args)
    # Of two lessons at the same time, that of the first to be done would be lost.
    with alone(folder) if is_model(folder) else contextlib.nullcontext():
        classifier = _opened(folder, given)
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


def evaluate(args: argparse.Namespace) -> int:
    """Do ``perdure eval``."""
    classifier = ContinualClassifier.load(model_folder(Path(args.model)))
    report = classifier.report(args.data, head=args.head)
    print_json(report.to_dict()) if args.json else print(report)
    return 0


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The keys that the command line names, by flag or as ``key=value``."""
    given = {flag: getattr(args, flag) for flag in FLAGS if getattr(args, flag) is not None}
    if args.skip_unreadable:
        given["skip_unreadable"] = True
    for text in args.overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{text}' is not of the form key=value, as epochs=2.")
        if key in given:
            raise ConfigError(f"{text}: {key} is named twice. Leave one out.")
        given[key] = parse_value(value)
    return given


def _opened(folder: Path, given: dict[str, Any]) -> ContinualClassifier:
    """The model in the folder under these keys, or a new one where there is none yet."""
    _check_folder(folder)
    known = ContinualClassifier.load(folder) if is_model(folder) else None
    classifier = known if known is not None else ContinualClassifier()
    own = (*PARAMETERS, "calibration_fraction")
    parameters = {key: value for key, value in given.items() if key in own}
    more = {key: value for key, value in given.items() if key not in own}
    if isinstance(parameters.get("heads"), str):
        parameters["heads"] = [parameters["heads"]]
    options = {**(classifier.options or {}), **more} or None
    return classifier.set_params(**parameters, options=options)  # type: ignore[no-any-return]  # sklearn has no types


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a model, before anything is computed."""
    if is_model(folder):
        return
    if is_model(folder / "model"):
        raise OutputError(
            f"'{folder}' is a finished run, whose results would no longer be its model's. Learn on "
            f"from a copy: perdure save {folder} MODEL."
        )
    if check_place(folder) == folder and any(folder.iterdir()):
        raise OutputError(
            f"The folder '{folder}' is not empty and holds no model. Name the folder of a saved "
            "model, or one that does not exist yet."
        )


def _print_lesson(lesson: Lesson) -> None:
    images = sum(lesson.images.values())
    parts = []
    if lesson.new:
        parts.append(
            f"{counted(len(lesson.new), 'new class', 'new classes')} ({listed(lesson.new, _SHOWN)})"
        )
    more = [name for name in lesson.images if name not in lesson.new]
    if more:
        parts.append(f"more images of {listed(more, _SHOWN)}")
    held = f", {lesson.held_out} more held out" if lesson.held_out else ""
    print(f"learned   {' and '.join(parts)}: {counted(images, 'image')}{held}")
    for head, accuracy in lesson.accuracy.items():
        error = 100 * lesson.calibration_error[head]
        print(
            f"accuracy  {per_cent(accuracy)} of those held out, among all classes so far "
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
