"""New models of ``learn`` and ``serve``: their keys on the command line, checked before torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.atomic import check_place
from perdure.cli.parsing import Parser
from perdure.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from perdure.learner import ContinualClassifier


def add_new_model(command: Parser) -> None:
    """Add what a new model is made from."""
    command.option("--method", "NAME", "of a new model; see `perdure ls methods`")
    command.option("--backbone", "NAME", "of a new model; see `perdure ls backbones`")
    command.option("--device", "NAME", "auto, cpu, cuda or mps")


def values_of(args: argparse.Namespace) -> dict[str, Any]:
    """Keys of the command line, by flag or as ``key=value``."""
    from perdure.keys import parse_value
    from perdure.learner.settings import PARAMETERS

    flags = (*PARAMETERS, "skip_unreadable")
    values = {flag: value for flag in flags if (value := getattr(args, flag, None))}
    for text in args.overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{text}' is not of the form key=value, as epochs=2.")
        if key in values:
            raise ConfigError(f"{text}: {key} is named twice. Leave one out.")
        values[key] = parse_value(value)
    return values


def open_model(folder: Path, values: dict[str, Any]) -> ContinualClassifier:
    """The model in the folder under these keys, or a new one where there is none yet."""
    from perdure.learner import ContinualClassifier
    from perdure.learner.saved.contents import is_model

    check_folder(folder)
    if not is_model(folder):
        return new_model(values)
    known = ContinualClassifier.load(folder, device=values.get("device", "auto"))
    return _under(known, values)


def new_model(values: dict[str, Any]) -> ContinualClassifier:
    """A classifier under these keys that has learned nothing."""
    from perdure.learner import ContinualClassifier

    return _under(ContinualClassifier(), values)


def _under(classifier: ContinualClassifier, values: dict[str, Any]) -> ContinualClassifier:
    parameters, more = _parted(values)
    options = {**(classifier.options or {}), **more} or None
    return classifier.set_params(**parameters, options=options)  # type: ignore[no-any-return]  # sklearn has no types


def _parted(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of a classifier's parameters, and of its options."""
    from perdure.learner.settings import PARAMETERS

    own = (*PARAMETERS, "calibration_fraction")
    parameters = {key: value for key, value in values.items() if key in own}
    if isinstance(parameters.get("heads"), str):
        parameters["heads"] = [parameters["heads"]]
    return parameters, {key: value for key, value in values.items() if key not in own}


def check_values(folder: Path, values: dict[str, Any]) -> None:
    """Refuse keys and values that no lesson takes, before torch is imported."""
    from perdure.engine.config import PARTS
    from perdure.keys import defaults_of
    from perdure.learner.saved.contents import is_model, read_contents
    from perdure.learner.settings import METHOD, PARAMETERS, make_settings, parameters_of

    usual: dict[str, Any] = {**defaults_of(*PARTS), "method": METHOD, "heads": None}
    options: dict[str, Any] = {}
    if is_model(folder):
        usual, options = parameters_of(read_contents(folder).config())
    parameters, more = _parted(values)
    make_settings({key: {**usual, **parameters}[key] for key in PARAMETERS}, {**options, **more})


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a model, before anything is computed."""
    from perdure.learner.saved.contents import is_model
    from perdure.learner.saved.files import is_unfinished

    if is_model(folder):
        return
    if is_model(folder / "model"):
        raise OutputError(
            f"'{folder}' is a finished run, whose results would no longer be its model's. Learn on "
            f"from a copy: perdure save {folder} MODEL."
        )
    if check_place(folder) == folder and not is_unfinished(folder):
        raise OutputError(
            f"The folder '{folder}' is not empty and holds no model. Name the folder of a saved "
            "model, or one that does not exist yet."
        )
