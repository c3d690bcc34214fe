"""Joint training: its stages."""

from __future__ import annotations

from perdure.engine.run import plan
from perdure.testing import make_trial


def test_joint_trains_once_or_after_every_task() -> None:
    trial = make_trial("joint", sizes=(2, 2, 2), images=4)
    for after, wanted in (("last", [(0, 6, 2)]), ("each", [(0, 2, 0), (0, 4, 1), (0, 6, 2)])):
        stages = plan(trial.stream, trial.config.replace(train_after=after))
        found = [(s.data.task.index, len(s.data.task.classes), s.last) for s in stages]
        assert found == wanted
        assert all(stage.fresh for stage in stages)
