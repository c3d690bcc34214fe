"""Files of a search: its trials, and the winner as a preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from perdure.atomic import atomic_write
from perdure.engine.config import make_config
from perdure.errors import CheckpointError
from perdure.tuning.search import Search, SearchTrial, best, say_where
from perdure.wording import per_cent


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
        for key, value in plain(config.flat()).items()
        if key == "method" or value != plain(defaults).get(key)
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
    wanted = plain(search.describe())
    if asked != wanted:
        other = [key for key in wanted if asked.get(key) != wanted[key]]
        raise CheckpointError(
            f"'{out}' holds a search with another {' and '.join(other)}. Choose another --out, or "
            "repeat the command that began it."
        )
    return trials


def write_trials(search: Search, trials: Sequence[SearchTrial], out: Path) -> None:
    """Record the trials in a folder.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        "search": search.describe(),
        "trials": [
            {key: value for key, value in asdict(trial).items() if key != "fault" or value}
            for trial in trials
        ],
    }
    atomic_write(out / "trials.json", (json.dumps(content, indent=1) + "\n").encode())


def plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))
