"""Runs of several configurations and seeds, each in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from perdure import experiment
from perdure.cluster.jobs import Submit
from perdure.engine.config import Config
from perdure.engine.folder import CONFIGURATION
from perdure.errors import ConfigError, JobError
from perdure.experiment import Finished, default_folder, of_seeds


def laid_out(
    configs: Sequence[Config], seeds: Sequence[int], out: Path | None
) -> dict[Path, Config]:
    """Return the folder of every run: that of its preset, and in it ``seed-N`` where there are seeds.

    Args:
        configs: one per preset.
        seeds: of each; none for those of the configurations.
        out: the folder of one preset, or that around several; ``runs/PRESET`` by default.

    Raises:
        ConfigError: two runs would have one folder, or a run would be shared by processes.
    """
    runs: dict[Path, Config] = {}
    for config in configs:
        shared = (config.runtime.devices, config.runtime.nodes)
        if shared != (1, 1):
            raise ConfigError(
                f"devices={shared[0]} nodes={shared[1]} share one run, and with --ray every run has "
                "one process. Leave them out, or --ray."
            )
        folder = default_folder(config)
        if out is not None:
            folder = out / folder.relative_to("runs") if len(configs) > 1 else out
        for place, one in of_seeds(config, seeds, folder).items():
            if place in runs:
                raise ConfigError(f"Two runs would be written to '{place}'. Name each preset once.")
            runs[place] = one
    return runs


def run_all(
    runs: Mapping[Path, Config],
    submit: Submit,
    *,
    resume: bool,
    diagnose: bool,
    on_end: Callable[[Path, str], None] = lambda *_: None,
) -> tuple[list[Finished], dict[Path, str]]:
    """Carry out runs at once; one that fails stops no other.

    Args:
        runs: configurations by folder.
        submit: starts a job, see `jobs_on_ray`.
        resume: as for `perdure.experiment.run`.
        diagnose: likewise.
        on_end: receives a folder, and why its run failed or an empty text.

    Returns:
        The finished runs, in order, and why the others failed.
    """
    waiting = {
        folder: submit(_run, config, folder.absolute(), resume, diagnose, _is_claimed(folder))
        for folder, config in runs.items()
    }
    done, faults = list[Finished](), dict[Path, str]()
    for folder, wait in waiting.items():
        try:
            done.append(dataclasses.replace(wait(), folder=folder))
        except JobError as error:
            faults[folder] = str(error)
        on_end(folder, faults.get(folder, ""))
    return done, faults


def _run(config: Config, folder: Path, resume: bool, diagnose: bool, claimed: bool) -> Finished:
    """Carry out a run in this process; where one was ended from outside, it goes on.

    That one has claimed the folder, which before all of them was free unless ``claimed``.
    """
    ended = not claimed and _is_claimed(folder)
    return experiment.run(config, folder, resume=resume or ended, diagnose=diagnose)


def _is_claimed(folder: Path) -> bool:
    return (folder / CONFIGURATION).exists()
