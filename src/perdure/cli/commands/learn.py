"""``perdure learn``: a model that grows with every folder of photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.atomic import alone
from perdure.cli.arguments import add_overrides, add_quiet
from perdure.cli.new_model import add_new_model, check_folder, check_values, open_model, values_of
from perdure.cli.output import print_json
from perdure.cli.parsing import add_command, count
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
    add_new_model(command)
    command.flag("--skip-unreadable", "leave out images that cannot be decoded, and name them")
    command.option(
        "--keep-versions",
        "N",
        "versions of the model kept for `perdure undo`; default: 5, and 0 removes all",
        type=count,
    )
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
    values = values_of(args)
    check_folder(folder)
    check_values(folder, values)

    from perdure.cli.progress import open_display
    from perdure.learner.saved.versions import KEPT

    # Of two lessons at the same time, first ones too, that of the first to be done would be lost.
    with alone(folder, "saving a model"):
        classifier = open_model(folder, values)
        with open_display(classifier.settings(), quiet=args.quiet) as display:
            classifier.learn(args.data, on_event=display)
        kept = KEPT if args.keep_versions is None else args.keep_versions
        sizes = classifier.save(folder, keep_versions=kept)
    lesson = classifier.last_lesson_
    if args.json:
        print_json(_as_object(folder, classifier, lesson, sizes))
        return 0
    _print_lesson(lesson)
    print(f"model     {folder}: {len(classifier.classes_)} classes, {sizes}")
    print(f"predict   perdure predict {folder} IMAGE…")
    return 0


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
    none = f", {counted(lesson.negatives, 'image')} of no class" if lesson.negatives else ""
    taught = " and ".join(parts) or "no class"
    print(f"learned   {taught}: {counted(images, 'image')}{held}{none}")
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
