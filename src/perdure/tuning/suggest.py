"""Suggestion of the next setting, by a tree-structured Parzen estimator."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from perdure.randomness import generator, permutation
from perdure.tuning.files import plain
from perdure.tuning.search import STARTING, Search, SearchTrial, Space


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


def _places(space: Space, values: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(plain(list(space[key])).index(plain(values[key])) for key in space)
