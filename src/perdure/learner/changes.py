"""Changes of a saved model from version to version: lessons, renamed and forgotten classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perdure.learner.history import Lesson
from perdure.learner.saved.contents import Contents, read_contents
from perdure.learner.saved.versions import grew_from, undoable
from perdure.wording import counted, listed


@dataclass(frozen=True)
class Change:
    """What made one version into the next.

    Attributes:
        lessons: that were learned.
        renamed: classes with another name, as (before, after); merged where it was another's.
        forgotten: classes that were removed.
        time: when, in seconds since 1970.
    """

    lessons: tuple[Lesson, ...]
    renamed: tuple[tuple[str, str], ...]
    forgotten: tuple[str, ...]
    time: float

    def __str__(self) -> str:
        parts = [_told(lesson) for lesson in self.lessons]
        parts += [f"{before} is called {after}" for before, after in self.renamed]
        if self.forgotten:
            parts.append(f"forgot {listed(self.forgotten, 8)}")
        return "; ".join(parts) or "another model"


def changes(folder: Path) -> list[Change]:
    """Return what `undo` can take back, the newest last.

    Raises:
        CheckpointError: the model or a version is damaged.
    """
    versions = undoable(folder)
    states = [version.contents for version in versions] + [read_contents(folder)]
    return [
        _change(before, after, version.replaced)
        for version, before, after in zip(versions, states, states[1:], strict=False)
    ]


def _change(before: Contents, after: Contents, time: float) -> Change:
    old, new = before.classes, after.classes
    if not grew_from(before, new, after.description.history):
        return Change((), (), (), time)
    learned = after.description.history.lessons[len(before.description.history.lessons) :]
    renamed = [pair for pair in zip(old.classes, new.classes, strict=False) if pair[0] != pair[1]]
    gone = [new.classes[label] for label in new.forgotten if label not in old.forgotten]
    return Change(learned, tuple(dict.fromkeys(renamed)), tuple(dict.fromkeys(gone)), time)


def _told(lesson: Lesson) -> str:
    of_none = f"{counted(lesson.negatives, 'image')} of no class"
    if not lesson.images:
        return f"learned {of_none}"
    images = counted(sum(lesson.images.values()), "image")
    images += f" and {of_none}" if lesson.negatives else ""
    more = [name for name in lesson.images if name not in lesson.new]
    parts = [f"learned {listed(lesson.new, 8)}"] if lesson.new else []
    parts += [f"more of {listed(more, 8)}"] if more else []
    return f"{' and '.join(parts)} ({images})"
