"""``perdure tune``: hyperparameters chosen on validation images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.arguments import (
    add_head,
    add_jobs,
    add_preset,
    add_quiet,
    add_seeds,
    check_jobs,
    read_seeds,
)
from perdure.cli.output import messages, print_columns, print_json
from perdure.cli.parsing import UsageError, add_command, positive
from perdure.errors import DivergenceError, JobError
from perdure.wording import counted, printable

if TYPE_CHECKING:
    from perdure.cli.progress import Display
    from perdure.engine.config import ChosenOn, Config
    from perdure.tuning import Search, SearchTrial


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "tune", tune, rest="overrides", again="")
    add_preset(command)
    command.option("--budget", "N", "settings to try", type=positive, default=8)
    command.option(
        "--space",
        "key=value,…",
        "values to choose from; default: a small space that suits the method",
        nargs="+",
    )
    command.flag(
        "--first-task",
        "judge settings on the first task alone, cut into pseudo-tasks: nothing of the future is seen",
    )
    command.option(
        "--on",
        "key=value",
        "judge settings on another stream: its keys, as data=digits tasks=B0-Inc2",
        nargs="+",
    )
    add_seeds(command, "run every setting once per seed")
    add_head(command, "whose accuracy counts; default: the first")
    command.option("--out", "DIR", "default: runs/tune/PRESET")
    command.option(
        "--at-once",
        "N",
        "trials under way together: a setting is chosen without the N − 1 before it",
        type=positive,
        default=1,
    )
    add_jobs(command, "make trials on Ray, each seed in a process of its own")
    add_quiet(command)


def tune(args: argparse.Namespace) -> int:
    """Choose hyperparameters on validation images, and write the best as a preset.

    Examples:
        perdure tune digits/nsp2 --budget 8
        perdure tune digits/nsp2 --space lr=0.003,0.01 temperature=5,28 --seeds 0,1
        perdure tune digits/l2p img_size=64 --head gaussian
        perdure tune cifar100-10s/nsp2 --first-task
        perdure tune cifar100-10s/nsp2 --on data=digits tasks=B0-Inc2
        perdure tune digits/nsp2 --budget 16 --ray --at-once 4      by Ray, with the same result

        The same command goes on after an interruption; a larger budget adds trials.
    """
    from perdure.engine.config import load_config, read_overrides
    from perdure.keys import keys_of
    from perdure.streams.config import StreamConfig

    check_jobs(args)
    # What was mistyped is said before torch is imported.
    config = load_config(args.what, args.overrides)
    space = _space(args.space, config) if args.space else None
    if args.first_task and args.on:
        raise UsageError("--first-task and --on name two streams to judge settings on: give one.")
    other = read_overrides(args.on or ())
    if foreign := [key for key in other if key not in keys_of(StreamConfig)]:
        raise UsageError(
            f"--on {foreign[0]}=…: only keys of a stream may differ, as data=digits tasks=B0-Inc2."
        )
    seeds = read_seeds(args.seeds, args.overrides)

    from perdure import tuning
    from perdure.cli.progress import open_display
    from perdure.experiment import default_folder

    chosen_on: ChosenOn = "first_task" if args.first_task else "same_stream"
    search = tuning.make_search(config, space, seeds, args.head, chosen_on, other, args.at_once)
    out = (
        Path(args.out)
        if args.out
        else Path("runs/tune") / default_folder(config).relative_to("runs")
    )
    count = min(args.budget, search.size)
    if not args.json:
        where = tuning.say_where(search)
        messages().print(f"{counted(count, 'trial')} of {_say(search)}; judged on {where}")

    def display(number: int, one: Config) -> Display:
        return open_display(one, quiet=args.quiet, label=f"trial {number + 1} of {count}")

    if args.ray is None:
        trials = tuning.tune(search, args.budget, out, display)
    else:
        trials = _tune_on_ray(args, search, out, count)
    winner = tuning.best(trials)
    failed = [trial for trial in trials if trial.fault]
    if failed:
        messages().print(
            f"{counted(len(failed), 'trial')} of {len(trials)} failed, first: "
            f"{printable(failed[0].fault)}. The same command makes them again."
        )
    if winner is None and failed:
        raise JobError("No trial has a score.")
    if winner is None:
        raise DivergenceError(
            f"All {counted(len(trials), 'trial')} diverged. Search lower learning rates, as "
            "--space lr=0.0001,0.001."
        )
    path = out / "winner.toml"
    tuning.write_winner(search, trials, path, config.stream.validation_fraction)
    if args.json:
        rows = [dataclasses.asdict(trial) for trial in trials]
        found = {"winner": str(path), "values": winner.values, "chosen_on": search.chosen_on}
        print_json({**found, "trials": rows})
        return 1 if failed else 0
    _print(search, trials)
    print(f"winner   {path}")
    print(f"run      perdure run {path}")
    return 1 if failed else 0


def _tune_on_ray(
    args: argparse.Namespace, search: Search, out: Path, count: int
) -> list[SearchTrial]:
    """Make the trials on Ray."""
    from perdure import tuning
    from perdure.cluster.jobs import Resources, jobs_on_ray

    def say(number: int, trial: SearchTrial) -> None:
        if not args.quiet:
            shown = trial.fault or (
                f"{_scores(trial)[0]} %" if trial.score is not None else "diverged"
            )
            messages().print(printable(f"trial {number + 1} of {count}: {shown}"))

    resources = Resources(args.cpus or 1, args.gpus)
    with jobs_on_ray(args.ray, resources, args.imports) as submit:

        def start(number: int, chosen: Any, seed: int, folder: Path) -> Any:
            runner = tuning.TrialRunner(search)
            return submit(runner.run, number, chosen, seed, folder.absolute())

        return tuning.tune(search, args.budget, out, start=start, on_trial=say)


def _space(given: Sequence[str], config: Config) -> dict[str, tuple[Any, ...]]:
    """Keys and values to choose from, each of which the configuration takes."""
    from perdure.keys import parse_value, split_list

    space: dict[str, tuple[Any, ...]] = {}
    for entry in given:
        key, equals, values = entry.partition("=")
        if not equals or not key or not values:
            raise UsageError(f"--space {entry}: write key=value,value, as lr=0.001,0.01.")
        space[key] = tuple(parse_value(value) for value in split_list(values))
        for value in space[key]:
            # A search holds images out, if the configuration does not.
            config.replace(**{"validation_fraction": 0.2, key: value})
    return space


def _say(search: Search) -> str:
    keys = ", ".join(f"{key} of {list(values)}" for key, values in search.space.items())
    return f"{counted(search.size, 'setting')}: {keys}"


def _print(search: Search, trials: Sequence[SearchTrial]) -> None:
    """Print every trial, best first."""
    keys = list(search.space)
    order = sorted(range(len(trials)), key=lambda place: -(trials[place].score or -1.0))
    rows = [
        [
            str(place + 1),
            *(str(trials[place].values[key]) for key in keys),
            *_scores(trials[place]),
            f"{trials[place].seconds:.0f} s",
        ]
        for place in order
    ]
    from perdure.tuning import say_where

    seeds = counted(len(search.seeds), "seed")
    print(f"Validation images of {say_where(search)}, {search.head} head, mean of {seeds}:")
    print_columns(["trial", *keys, "last acc %", "forgetting", "time"], rows)
    print()


def _scores(trial: SearchTrial) -> list[str]:
    if trial.score is None:
        return ["failed" if trial.fault else "diverged", ""]
    lost = [one["forgetting"] for one in trial.metrics if one["forgetting"] is not None]
    shown = f"{100 * sum(lost) / len(lost):.1f}" if lost else ""
    return [f"{100 * trial.score:.1f}", shown]
