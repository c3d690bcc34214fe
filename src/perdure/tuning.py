"""Hyperparameter search on validation images (``perdure tune``), with a budget of trials.

Test images are never looked at: every task's validation images, split off its training images, stand
in for them. A learner does not have the images of tasks to come either: a search may keep to the
first task, cut into pseudo-tasks of its own classes, or to another stream.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import tomli_w

from perdure.atomic import alone, atomic_write
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.build import make_backbone, make_stream, with_text
from perdure.engine.config import NEUTRAL, ChosenOn, Config, make_config
from perdure.engine.events import Sink, ignore
from perdure.engine.run import Run, plan
from perdure.errors import CheckpointError, ConfigError, DivergenceError, JobError, StreamError
from perdure.experiment import announced
from perdure.metrics import summarise
from perdure.randomness import generator, permutation
from perdure.streams import Stream, Subset, TaskData
from perdure.types import Task
from perdure.wording import counted, per_cent

RATES = (0.001, 0.003, 0.01, 0.03)
"""Learning rates that are searched for every method that trains."""
FRACTION = 0.2
"""Of the training images, held out where the configuration holds out none."""
STARTING = 4
"""Trials drawn at random before the search learns from those that were made."""
FEWEST = 2
"""Classes of a pseudo-task, and pseudo-tasks of a first task, at least."""
PSEUDO_TASKS = 5
"""Of a first task, at most."""
KEPT = ("last_accuracy", "average_incremental_accuracy", "forgetting", "plasticity")

Space = Mapping[str, Sequence[Any]]
"""Values to choose from, by key of the configuration."""


@dataclass(frozen=True)
class SearchTrial:
    """A trial: one setting, its score and metrics.

    Attributes:
        values: the setting.
        score: mean over seeds of the last accuracy on validation images; None where a run diverged.
        metrics: per seed.
        seconds: working time.
        fault: why it failed, other than by diverging; the search goes on, and the next call makes
            it again. Empty where it did not.
    """

    values: dict[str, Any]
    score: float | None
    metrics: list[dict[str, float | None]]
    seconds: float
    fault: str = ""


@dataclass(frozen=True)
class SeedRun:
    """Run of a setting with one seed.

    Attributes:
        metrics: of the head that counts; None where the loss diverged.
        seconds: working time.
    """

    metrics: dict[str, float | None] | None
    seconds: float


@dataclass(frozen=True)
class Search:
    """A search space over one configuration.

    Attributes:
        config: values of the keys that are not searched.
        space: values of those that are.
        seeds: every setting is run with each of them.
        head: head whose accuracy counts.
        chosen_on: on which images settings are judged: ``same_stream``, ``first_task`` (cut into
            pseudo-tasks) or ``other_stream``.
        other: keys of the other stream, which trials are run with.
        at_once: trials that may be under way together. The setting of a trial follows from all but
            the last ``at_once − 1`` before it, wherever they run.
    """

    config: Config
    space: Space
    seeds: tuple[int, ...]
    head: str
    chosen_on: ChosenOn = "same_stream"
    other: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 1

    @property
    def size(self) -> int:
        """Number of settings in the space."""
        return math.prod(len(values) for values in self.space.values())

    def describe(self) -> dict[str, Any]:
        """Return the search's identity, JSON-ready: a resumed search must have the same."""
        return {
            "config": self.config.hash(),
            "space": {key: list(values) for key, values in self.space.items()},
            "seeds": list(self.seeds),
            "head": self.head,
            "stream": dict(self.other) or self.chosen_on,
            **({"at_once": self.at_once} if self.at_once > 1 else {}),
        }

    def waits_for(self, number: int) -> int:
        """Return how many trials must be finished before the setting of a trial is chosen.

        The first settings are drawn at random, and wait for none.
        """
        return 0 if number < STARTING else max(0, number - self.at_once + 1)

    def trial(self, values: Mapping[str, Any], seed: int) -> Config:
        """Return the configuration of a trial's run."""
        return self.config.replace(**{**self.other, **values, "seed": seed})

    def stream(self, seed: int) -> Stream:
        """Return the stream of its trials, with validation images in place of test images.

        Raises:
            StreamError: a class with a single image, or a first task that is too small.
            ConfigError: what a run would refuse.
        """
        config = self.trial({}, seed)
        stream = validation_stream(config)
        if self.chosen_on == "first_task":
            stream = first_task_stream(stream)
        plan(stream, config)
        return stream


def make_search(
    config: Config,
    space: Space | None = None,
    seeds: Sequence[int] = (),
    head: str | None = None,
    chosen_on: ChosenOn = "same_stream",
    other: Mapping[str, Any] | None = None,
    at_once: int = 1,
) -> Search:
    """Build a search and check its space, seeds and head.

    Args:
        config: a preset or a configuration of one's own.
        space: values by key; the method's own small space by default.
        seeds: seeds of the runs; the configuration's own by default.
        head: an evaluated head; the first by default.
        chosen_on: on which images settings are judged, see `Search`.
        other: keys of the stream that they are judged on in place of the configuration's own, as
            ``{"data": "digits", "tasks": "B0-Inc2"}``.
        at_once: trials that may be under way together, see `Search`.

    Raises:
        ConfigError: nothing to search, a key or value that a run would refuse, no such head, or a
            run that several processes would share.
    """
    if (config.runtime.devices, config.runtime.nodes) != (1, 1):
        raise ConfigError(
            f"devices={config.runtime.devices} nodes={config.runtime.nodes}: every trial of a search "
            "is learned by one process. Leave them out; --ray makes several trials at once."
        )
    if other:
        chosen_on = "other_stream"
        config.replace(**other)
    if not config.stream.validation_fraction:
        config = config.replace(validation_fraction=FRACTION)
    space = default_space(config) if space is None else space
    if useless := [key for key in space if key in NEUTRAL]:
        raise ConfigError(f"{useless[0]} cannot be searched: it changes no result.")
    if not space or not all(space.values()):
        raise ConfigError(
            f"There is nothing to search for method '{config.training.method}'. Name keys and "
            "values, as --space lr=0.001,0.01."
        )
    for key, value in ((key, value) for key, values in space.items() for value in values):
        config.replace(**{key: value})
    head = config.head_names[0] if head is None else head
    if head not in config.head_names:
        raise ConfigError(
            f"head={head}: this configuration evaluates {', '.join(config.head_names)}."
        )
    seeds = tuple(seeds) or (config.training.seed,)
    return Search(config, space, seeds, head, chosen_on, other or {}, at_once)


def default_space(config: Config) -> Space:
    """Return the default space: learning rates, and the method's tuned options."""
    method = config.method_class
    return {"lr": RATES, **method.tuned} if method.traits.trains else {}


Start = Callable[[int, Mapping[str, Any], int, Path], Callable[[], SeedRun]]
"""Starts a setting's run with a seed in a folder, and returns what waits for it."""


class TrialRunner:
    """Runner of trials in this process; streams and backbones are built once.

    Random weights are of a seed, so that there is a backbone for each.

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
        self._streams: dict[int, Stream] = {}
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
        of = seed if config.training.weights == "random" else 0
        if of not in self._backbones:
            self._backbones[of] = make_backbone(config)
        if seed not in self._streams:
            self._streams[seed] = self._search.stream(seed)
        stream = self._streams[seed]
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
        _write(search, trials, out)
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
        flat = search.config.replace(**self.chosen).flat()
        values = _plain({key: flat[key] for key in search.space})
        return SearchTrial(values, _score(metrics), metrics, round(seconds, 2), fault)


def _begin(
    search: Search, start: Start, out: Path, number: int, chosen: Mapping[str, Any]
) -> _UnderWay:
    folder = _folder(out, number)
    runs = [start(number, chosen, seed, folder / str(seed)) for seed in search.seeds]
    return _UnderWay(number, chosen, runs)


def _folder(out: Path, number: int) -> Path:
    """Where the runs of a trial are, as long as it is not finished."""
    return out / f"trial-{number:03d}"


def validation_stream(config: Config) -> Stream:
    """Return the stream with validation images in place of test images.

    Raises:
        StreamError: a class with a single image, which cannot be split.
        ConfigError: what a run would refuse.
    """
    stream = with_text(make_stream(config), config)
    tasks = []
    for data in stream.tasks:
        assert data.val is not None  # a search always holds images out
        tasks.append(dataclasses.replace(data, test=data.val))
    return dataclasses.replace(stream, tasks=tuple(tasks))


def first_task_stream(stream: Stream) -> Stream:
    """Return the stream's first task alone, cut into pseudo-tasks of its own classes.

    They are as many as the stream has tasks, but two at least and five at most, of two classes or
    more and as equal as can be, the larger first.

    Raises:
        StreamError: fewer than four classes.
    """
    data = stream.tasks[0]
    classes = len(data.task.classes)
    if classes < FEWEST * FEWEST:
        raise StreamError(
            f"The first task has {counted(classes, 'class', 'classes')}: two pseudo-tasks need "
            f"{FEWEST * FEWEST}. Judge settings on another stream, as --on data=digits tasks=B0-Inc2."
        )
    count = max(FEWEST, min(len(stream.tasks), PSEUDO_TASKS, classes // FEWEST))
    sizes = tuple(classes // count + (place < classes % count) for place in range(count))
    tasks = []
    for index, end in enumerate(itertools.accumulate(sizes)):
        first = end - sizes[index]
        text = data.task.text_features
        task = Task(
            index,
            tuple(range(first, end)),
            data.task.names[first:end],
            end,
            None if text is None else text[first:end],
        )
        train, test = (_between(subset, first, end) for subset in (data.train, data.test))
        tasks.append(TaskData(task, train, None, test))
    return dataclasses.replace(
        stream,
        class_names=stream.class_names[:classes],
        class_order=stream.class_order[:classes],
        sizes=sizes,
        tasks=tuple(tasks),
        domains=(),
        repeats=False,
    )


def _between(subset: Subset, first: int, end: int) -> Subset:
    """Images of some labels, from the first to before the end."""
    kept = (subset.labels >= first) & (subset.labels < end)
    return Subset(subset.images, subset.indices[kept.numpy()], subset.labels[kept])


def suggest(
    search: Search,
    trials: Sequence[SearchTrial],
    settings: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the next setting, not tried yet, by a tree-structured Parzen estimator.

    A function of its arguments alone, so that a search that goes on after an interruption makes the
    trials that it would have made.

    Args:
        search: space and configuration.
        trials: finished trials to learn from, the first of all.
        settings: of all trials so far, those under way included; those of ``trials`` by default.
    """
    settings = [trial.values for trial in trials] if settings is None else settings
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = list(search.space)
    number = len(settings)
    seed = int(generator(search.seeds[0], "tune", number).initial_seed()) % 2**32
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    places: dict[str, optuna.distributions.BaseDistribution] = {
        key: optuna.distributions.IntDistribution(0, len(search.space[key]) - 1) for key in keys
    }
    tried = [_places(search.space, values) for values in settings]
    for trial, place in zip(trials, tried, strict=False):
        if trial.score is not None:
            params = dict(zip(keys, place, strict=True))
            past = optuna.trial.create_trial(params=params, distributions=places, value=trial.score)
            study.add_trial(past)
    asked = study.ask(fixed_distributions=places).params
    chosen = tuple(asked[key] for key in keys)
    if chosen in tried:
        every = list(itertools.product(*(range(len(search.space[key])) for key in keys)))
        order = permutation(len(every), search.seeds[0], "tune", number)
        chosen = next(every[place] for place in order if every[place] not in tried)
    return {key: search.space[key][place] for key, place in zip(keys, chosen, strict=True)}


def best(trials: Iterable[SearchTrial]) -> SearchTrial | None:
    """Return the trial with the highest score, the earliest of ties; None where all diverged."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: trial.score or 0.0) if scored else None


def say_where(search: Search) -> str:
    """Return on whose images settings are judged, in words."""
    if search.other:
        return ", ".join(f"{key}={value}" for key, value in search.other.items())
    if search.chosen_on == "first_task":
        return "the first task, cut into pseudo-tasks"
    return "all tasks of the stream itself"


def write_winner(
    search: Search, trials: Sequence[SearchTrial], path: Path, fraction: float
) -> None:
    """Write the best setting as a preset, with the search it came from.

    Args:
        search: the finished search.
        trials: its trials; one of them has a score.
        path: a ``.toml`` file.
        fraction: ``validation_fraction`` of the preset, which a search sets for itself.

    Raises:
        OutputError: it cannot be written.
    """
    winner = best(trials)
    assert winner is not None
    assert winner.score is not None
    config = search.config.replace(
        **winner.values, validation_fraction=fraction, chosen_on=search.chosen_on
    )
    defaults = make_config({"method": config.training.method}).flat()
    preset = {
        key: value
        for key, value in _plain(config.flat()).items()
        if key == "method" or value != _plain(defaults).get(key)
    }
    space = "; ".join(f"{key} of {list(values)}" for key, values in search.space.items())
    head = (
        f"# {config.preset or config.training.method}, tuned: the best of {len(trials)} of "
        f"{search.size} settings\n"
        f"# Chosen by the {search.head} head's last accuracy on validation images of "
        f"{say_where(search)} ({per_cent(winner.score)}), mean of seeds {list(search.seeds)}; no "
        "test image was seen.\n"
        f"# Searched: {space}\n"
        f"# perdure run {path}\n"
    )
    atomic_write(path, (head + tomli_w.dumps(preset)).encode())


def read_trials(search: Search, out: Path) -> list[SearchTrial]:
    """Return the trials recorded in a folder.

    Raises:
        CheckpointError: they belong to another search, or the file is damaged.
    """
    path = out / "trials.json"
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        trials = [SearchTrial(**trial) for trial in content["trials"]]
        asked = content["search"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as trials of a search ({error}). Choose another --out."
        ) from error
    wanted = _plain(search.describe())
    if asked != wanted:
        other = [key for key in wanted if asked.get(key) != wanted[key]]
        raise CheckpointError(
            f"'{out}' holds a search with another {' and '.join(other)}. Choose another --out, or "
            "repeat the command that began it."
        )
    return trials


def _write(search: Search, trials: Sequence[SearchTrial], out: Path) -> None:
    content = {
        "search": search.describe(),
        "trials": [_record(trial) for trial in trials],
    }
    atomic_write(out / "trials.json", (json.dumps(content, indent=1) + "\n").encode())


def _record(trial: SearchTrial) -> dict[str, Any]:
    record = dataclasses.asdict(trial)
    return record if trial.fault else {key: record[key] for key in record if key != "fault"}


def _score(metrics: Sequence[Mapping[str, float | None]]) -> float | None:
    scores = [one["last_accuracy"] for one in metrics]
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if known else None


def _places(space: Space, values: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(_plain(list(space[key])).index(_plain(values[key])) for key in space)


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))
