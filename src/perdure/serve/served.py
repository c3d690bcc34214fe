"""Served model: its state, one writer at a time, lessons in the background; the folder stays whole."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from perdure.atomic import alone
from perdure.engine.events import Event
from perdure.errors import PerdureError
from perdure.learner import ContinualClassifier, Forgotten
from perdure.learner.changes import changes
from perdure.learner.saved import versions
from perdure.learner.saved.contents import is_model, read_contents
from perdure.learner.saved.format import CONFIG
from perdure.learner.saved.model import state_of
from perdure.learner.state import LearnerState
from perdure.learner.suspects import Suspect
from perdure.serve.problems import Problem, as_problem

Progress = Literal["learning", "done", "failed"]
MOST_SUSPECTS = 100
_BUSY = "Another lesson or change is in progress. Try again when it is done."


@dataclass
class LessonJob:
    """A lesson that is learned in the background.

    Attributes:
        number: counts up from 1 while the server lives.
        images: that it was handed, where they were counted.
        state: how far it is.
        phase: what is being done, in a word.
        done: steps of the phase that are done.
        total: steps of the phase; None where that is not known.
        notes: what to know of its images.
        error: why it failed.
        lesson: what was learned.
        suspects: its images that the model names otherwise without them, the clearest first, at most
            `MOST_SUSPECTS`: ``place`` among the images handed in, ``image``, ``label``, ``answer``
            and its ``probability``.
        seconds: that it took, or takes so far.
    """

    number: int
    images: int | None
    state: Progress = "learning"
    phase: str = "reading images"
    done: int = 0
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    lesson: dict[str, Any] | None = None
    suspects: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, event: Event) -> None:
        """Take over the progress that an event of training tells."""
        if event.kind == "note":
            self.notes.append(str(event.fields["text"]))
        elif event.kind == "progress":
            self.phase = str(event.fields["phase"])
            self.done, self.total = event.fields.get("done", 0), event.fields.get("total")


class ServedModel:
    """A model in a folder, as it is served.

    The state is replaced as a whole, after the folder was: a prediction is of the state that it began
    with, and a change that fails leaves both as they were.

    Args:
        folder: of the model; where there is none yet, the first lesson makes it.
        fresh: what a new model is made from.
        device: where to run.
        read_only: whether changes are refused.
    """

    def __init__(
        self,
        folder: Path,
        fresh: Callable[[], ContinualClassifier] = ContinualClassifier,
        device: str = "auto",
        read_only: bool = False,
    ) -> None:
        self.folder, self.read_only = folder, read_only
        self._fresh, self._device = fresh, device
        self.state: LearnerState | None = None
        """What answers now; None where nothing was learned yet."""
        self._pointer = b""
        self._last_lesson = 0, b""
        self._writing = threading.Lock()
        self._numbers = 0
        self.version = 0
        """How often the model was changed since the server began."""
        self.job: LessonJob | None = None
        """The last lesson, done or not."""
        if is_model(folder):
            self._read()

    @property
    def is_gone(self) -> bool:
        """Whether the folder of a model that was read is not there any more."""
        return self.state is not None and not is_model(self.folder)

    @property
    def is_busy(self) -> bool:
        """Whether a lesson or change is in progress."""
        return self._writing.locked()

    # ------------------------------------------------------------------------------------ changes

    def teach(
        self,
        data: Any,
        labels: Any = None,
        *,
        images: int | None = None,
        instead_of: int | None = None,
        on_done: Callable[[bool], None] = lambda learned: None,
    ) -> LessonJob:
        """Begin a lesson in the background; see `ContinualClassifier.learn`.

        Args:
            data: as for ``learn``.
            labels: as for ``learn``.
            images: how many there are, where that is known.
            instead_of: number of the last lesson, where this one is to stand in its place, as if that
                had never been learned.
            on_done: is called at the end, with whether it was learned.

        Raises:
            Problem: another change is in progress, changes are refused, or the last change was not
                that lesson.
        """
        self._acquire()
        if instead_of is not None and not self._was_last(instead_of):
            self._writing.release()
            raise Problem(
                409,
                f"Lesson {instead_of} is not the last change of this model, so nothing can stand in "
                "its place. GET /api/lessons lists what can be undone.",
            )
        self._numbers += 1
        self.job = job = LessonJob(self._numbers, images)
        work = threading.Thread(
            target=self._teach,
            args=(job, data, labels, instead_of is not None, on_done),
            name="lesson",
            daemon=True,
        )
        work.start()
        return job

    def _teach(
        self, job: LessonJob, data: Any, labels: Any, instead: bool, on_done: Callable[[bool], None]
    ) -> None:
        began = time.monotonic()
        ended: Progress = "failed"

        def note(event: Event) -> None:
            job.note(event)
            job.seconds = time.monotonic() - began

        try:
            classifier = self._change(lambda one: one.learn(data, labels, on_event=note), instead)
            job.lesson = asdict(classifier.last_lesson_)
            job.suspects = [_told(one) for one in classifier.suspects_[:MOST_SUSPECTS]]
            self._last_lesson = job.number, self._pointer
            ended = "done"
        except BaseException as error:  # whatever it is, who asks for the lesson is told
            detail = as_problem(error).detail
            # Where an upload was unpacked, or folders of the server lie, is nobody's business.
            job.error = detail.replace(str(data), data.name) if isinstance(data, Path) else detail
        finally:
            job.seconds = time.monotonic() - began
            try:
                on_done(ended == "done")
            except (PerdureError, OSError) as error:  # the lesson itself is learned, or not
                job.notes.append(f"Its images could not be put away: {error}")
            finally:
                self._writing.release()
                job.state = ended  # whoever waits for it may go on at once

    def rename(self, name: str, new: str) -> None:
        """Give a class another name."""
        with self._alone():
            self._change(lambda one: one.rename_class(name, new))

    def merge(self, name: str, into: str) -> None:
        """Make a class part of another."""
        with self._alone():
            self._change(lambda one: one.merge_classes(name, into))

    def forget(self, name: str) -> Forgotten:
        """Remove a class from the model and its kept versions."""
        told: list[Forgotten] = []
        with self._alone():
            self._change(lambda one: told.append(one.forget_class(name)))
        return told[0]

    def undo(self) -> str:
        """Take back the last change; returns it in words.

        Raises:
            Problem: there is nothing to undo.
        """
        with self._alone():
            if self.state is None:
                raise Problem(409, "There is nothing to undo: nothing was learned yet.")
            kept = changes(self.folder)
            if not kept:
                raise Problem(409, versions.nothing_to_undo(read_contents(self.folder)))
            versions.undo(self.folder)
            self._read()
            self.version += 1
        return str(kept[-1])

    # -------------------------------------------------------------------------------------- parts

    def refuse_change(self) -> None:
        """Refuse a change that cannot begin now.

        Raises:
            Problem: the model is read-only, or another change is in progress.
        """
        if self.read_only:
            raise Problem(403, "This model is served read-only: it is asked, not taught.")
        if self.is_busy:
            raise Problem(409, _BUSY, {"retry-after": "2"})

    def _acquire(self) -> None:
        self.refuse_change()
        if not self._writing.acquire(blocking=False):
            raise Problem(409, _BUSY, {"retry-after": "2"})
        if self.is_gone:
            self._writing.release()
            raise Problem(
                409,
                f"The folder '{self.folder}' of this model was removed while it was served. "
                "Predictions go on from memory; put the folder back to change the model.",
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._acquire()
        try:
            yield
        finally:
            self._writing.release()

    def _change(
        self, change: Callable[[ContinualClassifier], object], instead: bool = False
    ) -> ContinualClassifier:
        """Change a copy of the model, save it, and only then answer with it.

        With ``instead`` it is the model before the last change, and takes the place of that after it.
        """
        with alone(self.folder, "saving a model"):
            if is_model(self.folder) and self._on_disk() != self._pointer:
                self._read()  # another process has changed it, or made it
            state = self._before_last() if instead else self.state
            classifier = (
                self._fresh()
                if state is None
                else ContinualClassifier.from_model(state.model, state.history)
            )
            change(classifier)
            classifier.save(self.folder, replace=instead)
            self.state, self._pointer = classifier.state_, self._on_disk()
        self.version += 1
        return classifier

    def _was_last(self, number: int) -> bool:
        """Whether a lesson of this number was the last change, by whatever process."""
        return self._last_lesson == (number, self._on_disk())

    def _before_last(self) -> LearnerState | None:
        """The model before the last change; None before the first lesson."""
        assert self.state is not None, "a lesson was learned"
        kept = versions.undoable(self.folder)
        if kept:
            return state_of(kept[-1].contents, self.state.model.backbone, self._device)
        if len(self.state.history.lessons) != 1:
            raise Problem(409, "The version before that lesson is not kept any more.")
        return None

    def _read(self) -> None:
        backbone = None if self.state is None else self.state.model.backbone
        pointer = self._on_disk()
        loaded = ContinualClassifier.load(self.folder, backbone, self._device)
        self.state, self._pointer = loaded.state_, pointer

    def _on_disk(self) -> bytes:
        with contextlib.suppress(OSError):
            return (self.folder / CONFIG).read_bytes()
        return b""


def _told(suspect: Suspect) -> dict[str, Any]:
    return {
        "place": suspect.place,
        "image": Path(suspect.image).name,
        "label": suspect.label,
        "answer": suspect.named,
        "probability": suspect.probability,
    }


def described(model: ServedModel) -> Mapping[str, Any]:
    """JSON-ready facts of a model: classes with their images, method, what can be done with it."""
    state = model.state
    facts: dict[str, Any] = {
        "name": model.folder.resolve().name,
        "classes": [],
        "method": None,
        "backbone": None,
        "heads": [],
        "lessons": 0,
        "can_learn": not model.read_only,
        "least_reject": None,
    }
    if state is not None:
        images = state.images
        config = state.model.config
        names = state.columns.names
        facts |= {
            "classes": [{"name": name, "images": images.get(name)} for name in names],
            "method": config.training.method,
            "backbone": state.model.backbone.name,
            "heads": list(config.head_names),
            "lessons": len(state.history.lessons),
            "can_learn": not model.read_only and not state.model.inference_only,
            "least_reject": _least_reject(state) if names else None,
        }
    return {
        **facts,
        "read_only": model.read_only,
        "busy": model.is_busy,
        "gone": model.is_gone,
        "version": model.version,
    }


def _least_reject(state: LearnerState) -> float | None:
    """The smallest share of known images that can be rejected; None where none can."""
    measured = state.separation(state.head_name(None))
    return None if measured is None else 1 / (measured[1].images + 1)
