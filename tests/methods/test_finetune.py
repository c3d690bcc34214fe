"""Sequential tuning: the learning rate after the first task."""

from __future__ import annotations

import pytest

from perdure.engine.model import Model
from perdure.testing import make_trial
from perdure.types import Task


@pytest.mark.parametrize(("factor", "second"), [(1.0, 0.01), (0.05, 0.0005)])
def test_finetune_cuts_the_learning_rate_after_the_first_task(factor: float, second: float) -> None:
    trial = make_trial("finetune", lr_after_first=factor)
    made = Model(trial.backbone, trial.config)
    rates = []
    for task in (Task(0, (0, 1), ("a", "b"), 2), Task(1, (2, 3), ("c", "d"), 4)):
        made.start_task(task)
        rates += [group["lr"] for group in made.method.param_groups(0.01)]
    assert rates == pytest.approx([0.01, second])


def test_a_first_task_of_one_class_takes_no_step_and_is_not_the_first() -> None:
    trial = make_trial("finetune", lr_after_first=0.05)
    made = Model(trial.backbone, trial.config)
    rates = []
    for task in (
        Task(0, (0,), ("a",), 1),
        Task(1, (1, 2), ("b", "c"), 3),
        Task(2, (3,), ("d",), 4),
    ):
        made.start_task(task)
        rates += [group["lr"] for group in made.method.param_groups(0.01)]
    assert rates == pytest.approx([0.01, 0.01, 0.0005])
