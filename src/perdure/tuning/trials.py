"""Trials of a search: runs of a setting, seed by seed, until the budget is used up."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from perdure.atomic import alone
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.events import Sink, ignore
from perdure.engine.run import Run
from perdure.errors import ConfigError, DivergenceError, JobError
from perdure.experiment import announced
from perdure.metrics import summarise
from perdure.streams import Stream
from perdure.tuning.files import plain, read_trials, write_trials
from perdure.tuning.search import Search, SearchTrial
from perdure.tuning.suggest import suggest

_OF_BACKBONE = (
    "backbone",
    "weights",
    "img_size",
    "precision",
    "survey_precision",
    "device",
    "attention",
    "fold",
)
"""Keys by which backbones of trials may differ."""
_OF_TEXT = ("backbone", "weights", "heads", "class_embeddings", "templates", "text_features")
"""Keys by which text features of their streams may differ."""
KEPT = ("last_accuracy", "average_incremental_accuracy", "forgetting", "plasticity")


@dataclass(frozen=True)
class SeedRun:
    """Run of a setting with one seed.

    Attributes:
        metrics: of the head that counts; None where the loss diverged.
        seconds: working time.
    """

    metrics: dict[str, float | None] | None
    seconds: float


Start = Callable[[int, Mapping[str, Any], int, Path], Callable[[], SeedRun]]
"""Starts a setting's run with a seed in a folder, and returns what waits for it."""


class TrialRunner:
    """Runner of trials in this process; streams, and a backbone, are built once for all alike.

    Args:
        search: space and configuration.
        on_run: opens the sink of a run's events, from the trial's number and its configuration.
    """

    def __init__(
        self,
        search: Search,
        on_run: Callable[[int, Config], AbstractContextManager[Sink]] = lambda *_: nullcontext(
            ignore
        ),
    ) -> None:
        self._search, self._on_run = search, on_run
        self._streams: dict[Any, Stream] = {}
        self._kind = ""
        self._backbones: dict[int, FrozenBackbone] = {}

    def start(
        self, number: int, chosen: Mapping[str, Any], seed: int, folder: Path
    ) -> Callable[[], SeedRun]:
        """Put off a run until its result is asked for."""
        return partial(self.run, number, chosen, seed, folder)

    def run(self, number: int, chosen: Mapping[str, Any], seed: int, folder: Path) -> SeedRun:
        """Run a setting with one seed, or go on with the run in the folder.

        Raises:
            PerdureError: as a run does, but for a loss that diverges.
        """
        config = self._search.trial(chosen, seed)
        flat = config.flat()
        kind, of = _values(flat, _OF_BACKBONE), seed if flat["weights"] == "random" else 0
        if kind != self._kind:  # those of one setting at a time: they are large
            self._kind, self._backbones = kind, {}
        if of not in self._backbones:
            self._backbones[of] = make_backbone(config)
        told = seed, _values(flat, _OF_TEXT)
        if told not in self._streams:
            self._streams[told] = self._search.stream(chosen, seed)
        stream = self._streams[told]
        try:
            with self._on_run(number, config) as sink:
                sink(announced(config, stream))
                outcome = Run(config, stream, self._backbones[of], folder, sink)()
        except DivergenceError:
            return SeedRun(None, 0.0)
        summary = summarise(outcome.counts[self._search.head])
        return SeedRun({key: summary[key] for key in KEPT}, outcome.seconds)


def tune(
    search: Search,
    budget: int,
    out: Path,
    on_run: Callable[[int, Config], AbstractContextManager[Sink]] = lambda *_: nullcontext(ignore),
    start: Start | None = None,
    on_trial: Callable[[int, SearchTrial], None] = lambda *_: None,
) -> list[SearchTrial]:
    """Run trials until the budget or the space is used up.

    Finished trials are kept in ``trials.json`` and not made again; one that was interrupted goes on.

    Args:
        search: space and configuration.
        budget: trials in all, those found in the folder included.
        out: the folder.
        on_run: opens the sink of a run's events, from the trial's number and its configuration.
        start: starts runs elsewhere; in this process, one after another, by default. A run there
            that fails costs its trial alone.
        on_trial: receives every trial that ends, and its number.

    Returns:
        All trials, in the order in which they were made.

    Raises:
        ConfigError: a budget below 1.
        CheckpointError: the folder holds another search.
        BusyError: another process searches in it.
    """
    if budget < 1:
        raise ConfigError(f"budget={budget}: it must be 1 or more.")
    with alone(out, "searching"):
        return _tuned(search, budget, out, start or TrialRunner(search, on_run).start, on_trial)


def _tuned(
    search: Search,
    budget: int,
    out: Path,
    start: Start,
    on_trial: Callable[[int, SearchTrial], None],
) -> list[SearchTrial]:
    """Run trials as `tune` does, alone in the folder."""
    trials = read_trials(search, out)
    failed = [number for number, trial in enumerate(trials) if trial.fault]
    for number in set(range(len(trials))) - set(failed):  # of a search killed while it cleared up
        shutil.rmtree(_folder(out, number), ignore_errors=True)
    under_way = [_begin(search, start, out, number, trials[number].values) for number in failed]
    limit = min(budget, search.size)
    settings = [trial.values for trial in trials]
    while under_way or len(settings) < limit:
        while len(settings) < limit and len(trials) >= search.waits_for(len(settings)):
            number = len(settings)
            chosen = suggest(search, trials[: search.waits_for(number)], settings)
            settings.append(chosen)
            under_way.append(_begin(search, start, out, number, chosen))
        trial = under_way.pop(0)
        ended = trial.end(search)
        trials[trial.number : trial.number + 1] = [ended]
        write_trials(search, trials, out)
        if not ended.fault:
            shutil.rmtree(_folder(out, trial.number), ignore_errors=True)  # may not be there
        on_trial(trial.number, ended)
    return trials


@dataclass(frozen=True)
class _UnderWay:
    """A trial that was begun: its setting, and what waits for its runs."""

    number: int
    chosen: Mapping[str, Any]
    runs: Sequence[Callable[[], SeedRun]]

    def end(self, search: Search) -> SearchTrial:
        """Wait for its runs."""
        metrics: list[dict[str, float | None]] = []
        seconds, fault = 0.0, ""
        for run in self.runs:
            try:
                one = run()
            except JobError as error:
                metrics, fault = [], str(error)
                break
            seconds += one.seconds
            if one.metrics is None:
                metrics = []
                break
            metrics.append(one.metrics)
        values = plain(dict(self.chosen))
        return SearchTrial(values, _score(metrics), metrics, round(seconds, 2), fault)


def _begin(
    search: Search, start: Start, out: Path, number: int, chosen: Mapping[str, Any]
) -> _UnderWay:
    folder = _folder(out, number)
    runs = [start(number, chosen, seed, folder / str(seed)) for seed in search.seeds]
    return _UnderWay(number, chosen, runs)


def _values(flat: Mapping[str, Any], keys: Sequence[str]) -> str:
    return json.dumps([flat.get(key) for key in keys], default=str)


def _folder(out: Path, number: int) -> Path:
    """Where the runs of a trial are, as long as it is not finished."""
    return out / f"trial-{number:03d}"


def _score(metrics: Sequence[Mapping[str, float | None]]) -> float | None:
    scores = [one["last_accuracy"] for one in metrics]
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if known else None
