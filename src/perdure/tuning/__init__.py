"""Hyperparameter search on validation images (``perdure tune``), with a budget of trials.

Test images are never looked at: every task's validation images, split off its training images, stand
in for them. A learner does not have the images of tasks to come either: a search may keep to the
first task, cut into pseudo-tasks of its own classes, or to another stream.
"""

from __future__ import annotations

from perdure.tuning.files import read_trials, write_winner
from perdure.tuning.search import (
    FRACTION,
    RATES,
    STARTING,
    Search,
    SearchTrial,
    Space,
    best,
    default_space,
    make_search,
    say_where,
)
from perdure.tuning.suggest import suggest
from perdure.tuning.trial_streams import first_task_stream, validation_stream
from perdure.tuning.trials import SeedRun, Start, TrialRunner, tune

__all__ = [
    "FRACTION",
    "RATES",
    "STARTING",
    "Search",
    "SearchTrial",
    "SeedRun",
    "Space",
    "Start",
    "TrialRunner",
    "best",
    "default_space",
    "first_task_stream",
    "make_search",
    "read_trials",
    "say_where",
    "suggest",
    "tune",
    "validation_stream",
    "write_winner",
]
