"""Settings of a classifier: from its parameters to the configuration of a lesson, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from perdure.engine.config import PARTS, Config, make_config, parts_of
from perdure.engine.old_keys import current
from perdure.errors import ConfigError
from perdure.heads import HEADS
from perdure.heads.choice import choose_head
from perdure.keys import defaults_of, keys_of
from perdure.methods import METHODS
from perdure.streams.config import StreamConfig

METHOD = "lda"
"""The method of a classifier that names none; docs/choosing-a-method.md has the reason."""
USUAL_HEADS = ("gaussian",)
"""The heads that are evaluated where none are named and the method leaves the choice."""
EPOCHS = 4
SMALL_DATA = {"shrinkage": "loo"}
"""Defaults that differ from those of runs, whatever the method; docs/heads.md has the reason."""
FROZEN = {"mirrored": True, "mean_shrinkage": 3.0}
"""Those of methods that train nothing besides; docs/heads.md has the reason."""
TRAINED = {"drift_debias": 1.0}
"""Those of methods that train; docs/drift.md has the reason."""
MERGE = {"iprompt": 0.5}
"""How far a method's prompts are merged after every lesson; docs/drift.md has the reason."""

PARAMETERS = keys_of(*PARTS, role="parameter")
"""Keys of the configuration that are parameters of their own."""
PER_LESSON = keys_of(*PARTS, role="per_lesson")
"""Keys that may differ from one lesson to the next."""
OF_RUNS = (
    *(key for key in keys_of(StreamConfig) if key not in PER_LESSON),
    *keys_of(*PARTS, role="of_runs"),
)
"""Keys without a meaning here: images come with every call, and there is no folder of a run."""


def make_settings(parameters: Mapping[str, Any], options: Any) -> Config:
    """Check a classifier's parameters; for small data, some defaults differ from the papers'.

    ``parameters`` are those named in `PARAMETERS`, where ``heads`` may be None; ``options`` any other
    keys of a run.

    Raises:
        ConfigError: an unknown key, one that has no use, a value that its key does not allow, or a
            method that trains on the union of all tasks.
    """
    method = str(parameters["method"])
    options = _checked(options, keys_of(*parts_of(method)))
    values = {**_recipe(method), "data": "folder", **parameters, **options}
    if values["heads"] is None:
        traits = METHODS.declared[method].traits
        free = not traits.fixed_heads and traits.heads == ("linear",)
        values["heads"] = USUAL_HEADS if free else ()
    if METHODS.declared[method].traits.cumulative:
        raise ConfigError(
            f"Method '{method}' trains on all tasks at once and needs the images of old ones, which a "
            "classifier that goes on learning does not keep. Choose another method: `perdure ls "
            "methods`."
        )
    config = make_config(values)
    return config.replace(**{"drift": drift_of(config), **_given_back(options), **options})


def _recipe(method: str) -> dict[str, Any]:
    """Defaults for small data, some by the trained head; without those of keys the method lacks."""
    traits, known = METHODS.declared[method].traits, keys_of(*parts_of(method))
    merge = {"merge": MERGE[method]} if method in MERGE else {}
    own = {**TRAINED, **HEADS.declared[traits.trained_head].recipe} if traits.trains else FROZEN
    recipe = {**SMALL_DATA, **merge, **own}
    return {key: value for key, value in recipe.items() if key in known}


def _given_back(options: Mapping[str, Any]) -> dict[str, float]:
    """Nothing with the mean of two maps, where it costs (docs/results.md): it is worked out for one."""
    return {"drift_debias": 0.0} if options.get("drift") == "mixed" else {}


def drift_of(config: Config) -> str:
    """Return how statistics follow the features by default, where these move.

    That is ``linear`` (docs/drift.md has the reason) where a head has statistics of features, and
    ``none`` where there is none, or one whose statistics are of lifted features.
    """
    options = [choose_head(name).options(config.heads) for name in config.head_names]
    keeps = [own for own in options if hasattr(own, "drift")]
    follows = keeps and all(getattr(own, "lift", "none") == "none" for own in keeps)
    return "linear" if config.traits.trains and follows else "none"


def _checked(options: Any, known: Collection[str]) -> Mapping[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(
            f"options={options!r}: give a mapping of keys to values, as options={{'lr': 0.003}}."
        )
    values = current(options, known)
    for key, value in values.items():
        if key in PARAMETERS:
            raise ConfigError(
                f"options={{{key!r}: …}}: {key} is a parameter of its own. Type {key}={value!r}."
            )
        if key in OF_RUNS:
            raise ConfigError(
                f"options={{{key!r}: …}} has no use: images come with every call of learn, one "
                f"process learns them, and no checkpoint is kept. Leave {key} out."
            )
    return values


def parameters_of(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and options under which a classifier has this configuration.

    ``skip_unreadable`` is for one lesson: it is not among them.
    """
    flat, method = config.flat(), config.training.method
    parameters = {**{key: flat[key] for key in PARAMETERS}, "heads": config.head_names}
    usual = {**defaults_of(*parts_of(method)), **_recipe(method), "drift": drift_of(config)}
    usual |= _given_back(flat)
    options = {
        key: value
        for key, value in flat.items()
        if key not in (*PARAMETERS, *OF_RUNS, "skip_unreadable") and usual.get(key) != value
    }
    return parameters, options


def next_settings(now: Config, wanted: Config) -> Config:
    """The configuration of the next lesson: that of the last one, with the keys of a lesson anew.

    Raises:
        ConfigError: they differ in what cannot change between lessons.
    """
    ours, theirs = ({**c.flat(), "heads": c.head_names} for c in (now, wanted))
    for key in dict.fromkeys((*PARAMETERS, *ours, *theirs)):
        if key not in (*PER_LESSON, *OF_RUNS) and ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"{key}={theirs.get(key)!r}: this classifier has learned under "
                f"{key}={ours.get(key)!r}, which cannot change between lessons. Set it back "
                "(set_params), or start anew (fit; on the command line, name another MODEL)."
            )
    parts = {}
    for name in ("training", "stream", "runtime"):
        part, new = getattr(now, name), getattr(wanted, name)
        changes = {key: getattr(new, key) for key in keys_of(type(part), role="per_lesson")}
        parts[name] = dataclasses.replace(part, **changes)
    return dataclasses.replace(now, **parts)
