"""What runs have in common and what sets them apart, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.engine.config import NEUTRAL
from perdure.reports.results.runs import FinishedRun, Section, show
from perdure.reports.tables.table import MISSING
from perdure.reports.tables.text_table import Sheet, plain

_SKIPPED = {*NEUTRAL, "method", "seed"}
_RUN_HEADS = ("run", "method", "seed", "time, s", "device", "torch", "perdure")


@dataclass(frozen=True)
class Settings:
    """The configuration of the runs of a section; a table is None where it has nothing to say.

    Attributes:
        shared: keys that all runs have with one value.
        differing: keys with several values, a column per variant.
        own: options that only some methods have, with one value.
    """

    shared: Sheet | None
    differing: Sheet | None
    own: Sheet | None


def settings_of(section: Section) -> Settings:
    """Compare the configurations of a section's variants."""
    variants = [variant[0] for variant in section.variants]
    known = [run for run in variants if run.config]
    keys = dict.fromkeys(key for run in known for key in run.config if key not in _SKIPPED)
    shared: list[list[str]] = []
    own: list[list[str]] = []
    seeds = [_seeds(variant) for variant in section.variants]
    differing = []
    if len(set(seeds)) > 1:
        differing.append(["seeds", *seeds])
    else:
        shared.append(["seeds", seeds[0]])
    for key in keys:
        holders = [run for run in known if key in run.config]
        values = list(dict.fromkeys(show(run.config[key]) for run in holders))
        if len(values) > 1:
            held = {id(run): show(run.config[key]) for run in holders}
            differing.append([key, *(held.get(id(run), MISSING) for run in variants)])
        elif len(holders) == len(known):
            shared.append([key, values[0]])
        else:
            methods = ", ".join(dict.fromkeys(run.method for run in holders))
            own.append([key, values[0], methods])
    labels = [variant_label(section, run) for run in variants]
    return Settings(
        _texts(["key", "value"], shared),
        _texts(["key", *labels], differing),
        _texts(["key", "value", "methods"], own),
    )


def list_runs(section: Section) -> Sheet:
    """Return a line per run: where it lies, how long it took, and on what."""
    rows = []
    for run in section.runs:
        packages = run.environment.get("packages")
        versions = packages if isinstance(packages, dict) else {}
        rows.append(
            [
                str(run.folder),
                run.method,
                show(run.seed),
                show(run.entries[0].get("seconds")),
                _device(run),
                str(versions.get("torch", MISSING)),
                str(versions.get("perdure", MISSING)),
            ]
        )
    return Sheet(_RUN_HEADS, [plain(row) for row in rows], "llrrlll")


def _device(run: FinishedRun) -> str:
    about = run.environment
    if not about:
        return MISSING
    device = str(about.get("device", MISSING))
    if device.startswith("cuda") and about.get("cuda"):
        return str(about["cuda"])
    threads = about.get("torch_threads", MISSING)
    return f"{device}, {threads} {'thread' if threads == 1 else 'threads'}"


def variant_label(section: Section, run: FinishedRun) -> str:
    """Return the method, with the options that set the run apart."""
    options = section.options(run)
    return f"{run.method} ({options})" if options else run.method


def _seeds(runs: Sequence[FinishedRun]) -> str:
    return " ".join(str(run.seed) for run in runs)


def _texts(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Sheet | None:
    return Sheet(heads, [plain(row) for row in rows], "l" * len(heads)) if rows else None
