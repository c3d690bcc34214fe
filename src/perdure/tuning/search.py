"""Search: the space of settings, the configuration that is tuned, and the trials it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.engine.config import ChosenOn, Config, neutral_keys
from perdure.engine.run import plan
from perdure.errors import ConfigError
from perdure.keys import keys_of
from perdure.streams import Stream
from perdure.streams.config import StreamConfig
from perdure.tuning.trial_streams import first_task_stream, validation_stream

RATES = (0.001, 0.003, 0.01, 0.03)
"""Learning rates that are searched for every method that trains."""
FRACTION = 0.2
"""Of the training images, held out where the configuration holds out none."""
STARTING = 4
"""Trials drawn at random before the search learns from those that were made."""

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

    def stream(self, values: Mapping[str, Any], seed: int) -> Stream:
        """Return the stream of a setting's trial, with validation images in place of test images.

        Raises:
            StreamError: a class with a single image, or a first task that is too small.
            ConfigError: what a run would refuse.
        """
        config = self.trial(values, seed)
        if self.chosen_on == "first_task":
            # The configuration's own: other seeds draw classes that are still to come in its stream.
            own = config.replace(seed=self.config.training.seed)
            stream = first_task_stream(validation_stream(own))
        else:
            stream = validation_stream(config)
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
    if useless := [key for key in space if key in neutral_keys(config.flat())]:
        raise ConfigError(f"{useless[0]} cannot be searched: it changes no result.")
    if not space or not all(space.values()):
        raise ConfigError(
            f"There is nothing to search for method '{config.training.method}'. Name keys and "
            "values, as --space lr=0.001,0.01."
        )
    _refuse_other_images(config, space, other or {})
    settings = [config.replace(**{key: v}) for key, values in space.items() for v in values]
    head = config.head_names[0] if head is None else head
    if head not in config.head_names:
        raise ConfigError(
            f"head={head}: this configuration evaluates {', '.join(config.head_names)}."
        )
    for setting in settings:
        if head not in setting.head_names:
            raise ConfigError(
                f"heads={','.join(setting.head_names)}: trials are judged by head={head}, which this "
                "one would not evaluate. Name it in every value of heads, or another --head."
            )
        judged = setting.built_heads.get(head)
        if judged and getattr(judged.options(setting.heads), "shrinkage", None) == "validation":
            raise ConfigError(
                "shrinkage=validation chooses by the very images that settings are judged by here. "
                "Take shrinkage=loo, or a number."
            )
    seeds = tuple(seeds) or (config.training.seed,)
    return Search(config, space, seeds, head, chosen_on, other or {}, at_once)


def _refuse_other_images(config: Config, space: Space, other: Mapping[str, Any]) -> None:
    """Refuse what makes the scores of trials those of other images, which do not compare."""
    if "seed" in space:
        raise ConfigError("seed cannot be searched: name the seeds of all trials, as --seeds 0,1.")
    if images := [key for key in space if key in keys_of(StreamConfig)]:
        raise ConfigError(
            f"{images[0]} cannot be searched: scores on other images do not compare. Give it to all "
            f"trials, as {images[0]}=…"
        )
    if not config.replace(**other).stream.validation_fraction:
        raise ConfigError(
            "validation_fraction=0: settings are judged on images held out. Leave it out, or give more."
        )


def default_space(config: Config) -> Space:
    """Return the default space: learning rates, and the method's tuned options."""
    method = config.method_class
    return {"lr": RATES, **method.tuned} if method.traits.trains else {}


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
