"""Published numbers beside ours, and per row whether and why they can be compared.

What is said about a pair follows from the run's results and configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.reports.results.runs import FinishedRun, StreamRuns, describe_tasks, show
from perdure.reports.tables.comparison import ComparisonRow
from perdure.reports.tables.published import PublishedResult, notes_on, published_results
from perdure.reports.tables.text_table import MISSING, TextTable

_THEIRS = ("published", "benchmark", "published acc %", "published forgetting")
_OURS = ("ours", "our acc %", "our forgetting")


@dataclass(frozen=True)
class Pair:
    """A published result beside ours, and whether they compare.

    Attributes:
        published: theirs.
        ours: the row of our table; None where the method was not run.
        obstacles: why they do not compare; empty where they do.
        caveats: other differences and unknowns.
    """

    published: PublishedResult
    ours: ComparisonRow | None
    obstacles: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class PublishedComparison:
    """What there is to say about the results over a stream and the published ones.

    Attributes:
        pairs: pairs of the methods that were run, and of every method on the same data set.
        left_out: number of published results of other methods on other data sets.
        notes: on methods without any published number.
    """

    pairs: tuple[Pair, ...]
    left_out: int
    notes: tuple[str, ...]

    def comparable(self) -> TextTable:
        """Return the pairs that can be compared, with what differs; may be without rows."""
        lines = [
            [*_theirs(pair.published), *_our_cells(pair), *_reasons(pair.caveats, pair)]
            for pair in self.pairs
            if not pair.obstacles
        ]
        return TextTable.plain((*_THEIRS, *_OURS, "what differs", "source"), lines, "llrrlrrll")

    def others(self) -> TextTable:
        """Return the published results that cannot be compared, with the reasons."""
        lines = dict.fromkeys(
            (*_theirs(pair.published), *_reasons(pair.obstacles, pair))
            for pair in self.pairs
            if pair.obstacles
        )
        return TextTable.plain((*_THEIRS, "why not", "source"), lines, "llrrll")

    def records(self) -> list[dict[str, Any]]:
        """Return the pairs for JSON; accuracies as fractions."""
        return [
            {
                "published": pair.published.name,
                "benchmark": pair.published.benchmark.title,
                "source": pair.published.source,
                "accuracy": pair.published.accuracy / 100,
                "ours": pair.ours.group.label if pair.ours else None,
                "our_accuracy": (
                    pair.ours.values[pair.published.accuracy_is].mean if pair.ours else None
                ),
                "comparable": not pair.obstacles,
                "obstacles": list(pair.obstacles),
                "caveats": list(pair.caveats),
            }
            for pair in self.pairs
        ]


def against_paper(stream: StreamRuns, rows: Sequence[ComparisonRow]) -> PublishedComparison:
    """Put the published results beside those of a stream's runs and their comparison."""
    methods = {run.method for run in stream.runs}
    streams = {str(run.entries[0]["stream"]) for run in stream.runs}
    listed = published_results()
    chosen = [p for p in listed if p.method in methods or p.benchmark.stream in streams]
    pairs = [pair for published in chosen for pair in _pairs(published, stream, rows)]
    notes = [text for method in sorted(methods) for text in notes_on(method)]
    return PublishedComparison(tuple(pairs), len(listed) - len(chosen), tuple(notes))


def judge(published: PublishedResult, row: ComparisonRow, run: FinishedRun) -> Pair:
    """Put a result of ours beside a published one; ``run`` is that of its first seed."""
    if not run.config:
        return Pair(published, row, ("the run's config.toml is not at hand",), ())
    obstacles = [*_stream_obstacles(published, run), *_input_obstacles(published, run)]
    given = {**run.config, "head": row.group.head}
    caveats = [
        f"{key} {show(given[key])}, not {show(value)}"
        for key, value in published.setting.items()
        if key in given and key != "img_size" and show(given[key]) != show(value)
    ]
    seeds = row.group.seeds
    if published.seeds and not set(seeds) <= set(published.seeds):
        caveats.append(f"class orders of seed {show(seeds)}, not {show(published.seeds)}")
    if "epochs" not in published.setting:
        caveats.append("their training is not stated")
    return Pair(published, row, tuple(obstacles), tuple(caveats))


def _stream_obstacles(published: PublishedResult, run: FinishedRun) -> Iterator[str]:
    theirs, (name, _, tasks, images, formed) = published.benchmark, run.stream
    if name != theirs.stream:
        yield f"data set {name}, not {theirs.stream}"
    if tasks not in (theirs.sizes, theirs.tasks):
        yield f"{describe_tasks(tasks)}, not {describe_tasks(theirs.sizes)}"
    if name == theirs.stream and images not in (None, theirs.test_images):
        yield f"{images:,} test images, not {theirs.test_images:,}"
    if formed:
        yield f"a stream of {formed}, not of new classes with all their images"
    cap, held_out = run.config.get("images_per_class"), run.config.get("validation_fraction")
    if cap is not None:
        yield f"at most {cap} training images per class, not {theirs.train_images:,} in all"
    if held_out:
        yield f"{100 * held_out:g} % of the training images held out for validation"


def _input_obstacles(published: PublishedResult, run: FinishedRun) -> Iterator[str]:
    name, weights = str(run.entries[0]["backbone"]), run.config.get("weights")
    if weights == "random":
        yield f"random weights of {name}"
    elif not published.backbones:
        yield "their weights are not stated"
    elif name not in published.backbones:
        yield f"backbone {name}, not {published.backbones[0]}"
    elif weights != "auto":
        yield f"weights from '{weights}', of which nobody can tell whether they are the same"
    size, theirs = run.config.get("img_size"), published.setting.get("img_size")
    if size is not None and theirs is not None and size != theirs:
        yield f"images of {size} px, not {theirs}"


def _pairs(
    published: PublishedResult, stream: StreamRuns, rows: Sequence[ComparisonRow]
) -> list[Pair]:
    pairs = [judge(published, row, stream.owner(row.group.entries[0])) for row in rows]
    ours = [p for p in pairs if p.ours and p.ours.group.method == published.method]
    if ours:
        return ours
    # Nothing of ours to put beside it: the setting that comes closest decides.
    closest = min(pairs, key=lambda pair: len(pair.obstacles))
    return [Pair(published, None, closest.obstacles, ("not run here",))]


def _theirs(one: PublishedResult) -> tuple[str, ...]:
    deviation = None if one.deviation is None else one.deviation / 100
    forgotten = MISSING if one.forgetting is None else f"{one.forgetting:.2f}"
    return one.name, one.benchmark.title, _figure(one.accuracy / 100, deviation), forgotten


def _our_cells(pair: Pair) -> tuple[str, ...]:
    if pair.ours is None:
        return (MISSING,) * len(_OURS)
    spreads = [pair.ours.values[key] for key in (pair.published.accuracy_is, "forgetting")]
    return pair.ours.group.label, *(_figure(one.mean, one.std) for one in spreads)


def _reasons(given: Sequence[str], pair: Pair) -> tuple[str, str]:
    return "; ".join(given) or "nothing that is stated", pair.published.source


def _figure(mean: float | None, std: float | None) -> str:
    if mean is None:
        return MISSING
    return f"{100 * mean:.2f}" + (f" ± {100 * std:.2f}" if std else "")
