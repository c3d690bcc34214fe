"""Settings that runs share and settings in which they differ, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.reports.results.runs import FinishedRun, StreamRuns, show
from perdure.reports.tables.text_table import MISSING, TextTable
from perdure.wording import counted

_RUN_HEADS = ("run", "method", "seed", "time, s", "device", "torch", "perdure")


@dataclass(frozen=True)
class Settings:
    """The configuration of runs over one stream; tables without rows have nothing to say.

    Attributes:
        shared: keys that all runs have with one value.
        differing: keys with several values, a column per variant.
        own: options that only some methods have, with one value.
    """

    shared: TextTable
    differing: TextTable
    own: TextTable


def settings_of(stream: StreamRuns) -> Settings:
    """Compare the configurations of a stream's variants."""
    variants = [variant[0] for variant in stream.variants]
    known = [run for run in variants if run.config]
    shared: list[Sequence[str]] = []
    differing: list[Sequence[str]] = []
    own: list[Sequence[str]] = []
    seeds = [" ".join(str(run.seed) for run in variant) for variant in stream.variants]
    if len(set(seeds)) > 1:
        differing.append(["seeds", *seeds])
    else:
        shared.append(["seeds", seeds[0]])
    for key in dict.fromkeys(key for run in known for key in run.setting() if key != "method"):
        holders = [run for run in known if key in run.config]
        values = list(dict.fromkeys(show(run.config[key]) for run in holders))
        if len(values) > 1:
            held = [show(r.config[key]) if key in r.config else MISSING for r in variants]
            differing.append([key, *held])
        elif len(holders) == len(known):
            shared.append([key, values[0]])
        else:
            methods = ", ".join(dict.fromkeys(run.method for run in holders))
            own.append([key, values[0], methods])
    return Settings(
        TextTable.plain(["key", "value"], shared),
        TextTable.plain(["key", *map(stream.label, variants)], differing),
        TextTable.plain(["key", "value", "methods"], own),
    )


def list_runs(stream: StreamRuns) -> TextTable:
    """Return a line per run: where it lies, how long it took, and on what."""
    rows = []
    for run in stream.runs:
        packages = run.environment.get("packages")
        versions = packages if isinstance(packages, dict) else {}
        rows.append(
            [
                run.folder,
                run.method,
                run.seed,
                show(run.entries[0].get("seconds")),
                _device(run),
                versions.get("torch", MISSING),
                versions.get("perdure", MISSING),
            ]
        )
    return TextTable.plain(_RUN_HEADS, rows, "llrrlll")


def _device(run: FinishedRun) -> str:
    about = run.environment
    if not about:
        return MISSING
    device = str(about.get("device", MISSING))
    if device.startswith("cuda") and about.get("cuda"):
        return str(about["cuda"])
    threads = about.get("torch_threads")
    return f"{device}, {counted(threads, 'thread') if threads else f'{MISSING} threads'}"
