"""Evaluation after a task: one pass over the test images of all tasks so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from perdure.engine.events import Event, Sink, ignore
from perdure.engine.model import Model
from perdure.engine.survey import ordered_batches
from perdure.metrics import Counts, count_batch
from perdure.streams import TaskData, batch_count
from perdure.types import classes_of


class Evaluator:
    """Evaluator: counts correct predictions of each head on the tasks' test images.

    Predictions are made without the task and without gradients. A prediction is right when the name
    of its class is: in another domain a class has another label. Where features never change, those
    of a test image are computed once in the whole run, and so are queries, which never do.

    Args:
        sink: receives progress events.

    Attributes:
        selections: of the last evaluation, per task, how much each prompt was chosen, where the
            method selects.
    """

    def __init__(self, sink: Sink = ignore) -> None:
        self._sink = sink
        self.selections: dict[int, Selection] = {}
        self._frozen: dict[int, Float[Tensor, "n d"]] = {}
        self._chosen: dict[int, Selection] = {}
        self._queries: dict[int, list[Float[Tensor, "b d"] | None]] = {}

    def __call__(self, model: Model, tasks: Sequence[TaskData]) -> dict[str, Counts]:
        """Evaluate on all given tasks.

        Args:
            model: predicts.
            tasks: the stream's tasks so far, in order; together they hold all of its classes.
        """
        sizes = torch.tensor([len(data.task.classes) for data in tasks])
        task_of_class = torch.arange(len(tasks)).repeat_interleave(sizes)
        class_of = torch.tensor(classes_of([name for data in tasks for name in data.task.names]))
        counts: dict[str, Counts] = {}
        self.selections = {}
        size = model.config.runtime.eval_batch_size
        total = sum(batch_count(len(data.test), size) for data in tasks)
        done = 0
        for data in tasks:
            for readout, labels in self._readouts(model, data):
                for head, logits in model.head_logits(readout).items():
                    new = count_batch(logits, labels, task_of_class, class_of)
                    counts[head] = counts[head] + new if head in counts else new
                done += 1
                fields = {"phase": "evaluation", "total": total}
                fields["done"] = model.ranks.done(done, total)
                self._sink(Event("progress", tasks[-1].task.index, fields))
        counts, self.selections = model.ranks.reduce((counts, self.selections), _joined)
        return counts

    @torch.no_grad()
    def _readouts(self, model: Model, data: TaskData) -> list[tuple[Tensor, Tensor]]:
        size, index = model.config.runtime.eval_batch_size, data.task.index
        if not len(data.test):
            return []
        test, _ = model.ranks.shard(data.test, size)
        if not len(test):
            return []
        labels = test.labels.split(size)
        if index in self._frozen:
            if index in self._chosen:
                self.selections[index] = self._chosen[index]
            return list(zip(self._frozen[index].split(size), labels, strict=True))
        readouts = []
        known = self._queries.setdefault(index, [])
        for place, batch in enumerate(ordered_batches(model, test)):
            if place == len(known):
                known.append(model.query(batch.images))
            readout, features = model.forward(batch.images, query=known[place])
            readouts.append(readout)
            self._note_selection(index, features.records)
        if model.features_fixed() and readouts:
            self._frozen[index] = torch.cat(readouts)
            if index in self.selections:
                self._chosen[index] = self.selections[index]
        return list(zip(readouts, labels, strict=True))

    def _note_selection(self, task: int, records: Mapping[str, Tensor]) -> None:
        """Sum the selection of a task's images, per place of selection."""
        chosen = {
            name: value.double().sum(0).cpu().numpy()
            for name, value in records.items()
            if name.startswith("selection")
        }
        self.selections[task] = _summed(self.selections.get(task, {}), chosen)


Selection = dict[str, Float64[np.ndarray, "m"]]
_Part = tuple[dict[str, Counts], dict[int, Selection]]
"""What a rank counts of an evaluation: by head, and by task."""


def _joined(one: _Part, other: _Part) -> _Part:
    """Add what two ranks counted; tasks stay in their order."""
    counts = _summed(one[0], other[0])
    tasks = sorted({*one[1], *other[1]})
    return counts, {t: _summed(one[1].get(t, {}), other[1].get(t, {})) for t in tasks}


def _summed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add values of the same name; of a name that only one has, take that."""
    added = {name: one[name] + value if name in one else value for name, value in other.items()}
    return {**one, **added}
