"""Conformance check of access: no old and no future image is read, by a log of readings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from PIL import Image

from perdure.engine.events import Event
from perdure.streams import ImageSet, Stream
from perdure.testing.trial import contained, make_trial

Read = tuple[str, int]
"""Split and position in the set of that split."""


class WatchedImages(ImageSet):
    """Image set that logs every reading and caches nothing.

    Args:
        images: where the images come from.
        split: ``"train"`` or ``"test"``.
        reads: where readings are noted.
    """

    memory_budget = 0

    def __init__(self, images: ImageSet, split: str, reads: list[Read]) -> None:
        super().__init__(images.labels, images.names)
        self._images = images
        self._split = split
        self._reads = reads

    def image(self, index: int) -> Image.Image:
        """Return one image and note that it was read."""
        self._reads.append((self._split, index))
        return self._images.image(index)


@dataclass
class ReadingLog:
    """Log of readings by stage and phase.

    The engine tells of a batch after having used it, so readings belong to the next event.

    Attributes:
        pending: readings that no event has claimed yet.
        stages: per stage, the readings of each phase.
    """

    pending: list[Read] = field(default_factory=list)
    stages: list[dict[str, set[Read]]] = field(default_factory=list)

    def watch(self, images: ImageSet, split: str) -> ImageSet:
        """Wrap the images of one split."""
        return WatchedImages(images, split, self.pending)

    def sink(self, event: Event) -> None:
        """Take an event of the engine."""
        if event.kind == "task":
            self._claim("between stages")
            self.stages.append(defaultdict(set))
        elif event.kind == "progress":
            self._claim(str(event.fields["phase"]))

    def close(self) -> None:
        """Claim what was read after the last event."""
        self._claim("between stages")

    def _claim(self, phase: str) -> None:
        if self.pending:
            assert self.stages, "images were read before the first task began"
            self.stages[-1][phase].update(self.pending)
            self.pending.clear()


@contained
def check_images_touched(method_name: str) -> None:
    """Training and survey read the task's own images only, evaluation test images of seen tasks.

    Where ``traits.cumulative`` says so, training and survey may read those of all tasks so far.
    """
    log = ReadingLog()
    trial = make_trial(method_name, sizes=(2, 2, 2), watch=log.watch, validation_fraction=0.25)
    trial.run(sink=log.sink)
    log.close()
    cumulative = trial.config.traits.cumulative
    tasks = len(trial.stream.tasks)
    # A cumulative method with one stage trains once, after the last task.
    first = tasks - len(log.stages) if cumulative else 0
    assert len(log.stages) in ({1, tasks} if cumulative else {tasks}), (
        f"'{method_name}' went through {len(log.stages)} stages for {tasks} tasks."
    )
    for last, phases in enumerate(log.stages, start=first):
        allowed = _allowed(trial.stream, last, cumulative)
        assert phases["evaluation"], f"'{method_name}' was not evaluated after task {last}."
        assert phases["features"] | phases["training"] | phases["survey"], (
            f"'{method_name}' did not look at task {last}."
        )
        for phase, reads in phases.items():
            wrong = sorted(reads - allowed.get(phase, set()))
            assert not wrong, (
                f"'{method_name}' read images that task {last} may not see, in phase '{phase}': "
                f"{', '.join(f'{split}[{index}]' for split, index in wrong[:5])}"
                f"{' …' if len(wrong) > 5 else ''}."  # noqa: PLR2004  enough to start from
            )


def _allowed(stream: Stream, last: int, cumulative: bool) -> dict[str, set[Read]]:
    """The readings that each phase may make after tasks 0 to ``last`` arrived."""
    own = stream.tasks[0 if cumulative else last : last + 1]
    train = {("train", int(i)) for data in own for i in data.train.indices}
    val = {("train", int(i)) for data in own if data.val is not None for i in data.val.indices}
    seen = stream.tasks[: last + 1]
    test = {("test", int(i)) for data in seen for i in data.test.indices}
    return {"features": train, "training": train, "survey": train | val, "evaluation": test}
