"""Sections of a report on the runs over one stream: texts, tables and figures.

A section whose data the runs do not have is left out; where a reader would look for it, a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from perdure.reports.figures.report import (
    MOST_CLASSES,
    accuracy_figure,
    confusion_figure,
    forgetting_figure,
    matrix_figures,
    named_curve,
    readings_figure,
    spectrum_figure,
    time_figures,
)
from perdure.reports.page.run_differences import list_runs, settings_of
from perdure.reports.results.groups import Entry
from perdure.reports.results.runs import StreamRuns
from perdure.reports.results.spectra import BlockSpectrum, read_spectra
from perdure.reports.results.time_to_accuracy import times_to_accuracy
from perdure.reports.tables.against_published import PublishedComparison
from perdure.reports.tables.comparison import (
    ComparisonRow,
    as_text_table,
    name_columns,
    spread_over,
)
from perdure.reports.tables.text_table import MISSING, TextTable

_KIB = 1024
_SELECTION = {
    "selection_share_in_use": ("share in use %", 100.0, 1),
    "selection_entropy": ("entropy", 1.0, 3),
    "selection_task_information": ("task information", 1.0, 3),
}
_DRIFT = {"size": 100.0, "explained": 100.0}


@dataclass(frozen=True)
class NamedTable:
    """A table of a section.

    Attributes:
        name: name of its files.
        content: its heads and rows.
        title: heads it in the page; empty for none.
        folded: whether the page shows it only when asked.
    """

    name: str
    content: TextTable
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class ReportSection:
    """A section of a report.

    Attributes:
        title: its heading.
        texts: paragraphs.
        tables: may be none.
        figures: each with the name of its file.
    """

    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[NamedTable, ...] = ()
    figures: tuple[tuple[str, Figure], ...] = ()


def sections_of(
    stream: StreamRuns, rows: Sequence[ComparisonRow], published: PublishedComparison | None
) -> list[ReportSection]:
    """Return the sections for which there is data.

    Args:
        stream: the runs.
        rows: their comparison.
        published: the comparison with published numbers, where it was asked for.
    """
    groups = [row.group for row in rows]
    curves = [named_curve(joined) for joined in groups]
    forgetting = forgetting_figure(groups)
    readings = readings_figure(rows)
    confusion = _numbered("confusion", map(confusion_figure, groups))
    metrics = NamedTable("metrics", as_text_table(rows, every=True))
    sections = [
        _setting(stream),
        ReportSection("Metrics", tables=(metrics,)),
        ReportSection(
            "Accuracy as tasks arrive",
            (
                "Over the test images of all classes seen so far, after each task. The legend gives "
                "the last value; bands are one standard deviation over seeds.",
            ),
            figures=(("accuracy", accuracy_figure(curves)),),
        ),
        ReportSection(
            "Accuracy per task",
            ("Down: the task just learned. Across: the task evaluated. Means over seeds.",),
            figures=_numbered("matrix", matrix_figures(curves)),
        ),
        forgetting
        and ReportSection(
            "Forgetting per task",
            (
                "Best accuracy of each task before the last one was learned, less its accuracy at "
                "the end. The legend gives the mean.",
            ),
            figures=(("forgetting", forgetting),),
        ),
        readings
        and ReportSection(
            "Features and heads",
            (
                "Within-task accuracy is what remains when every image's task is given: what the "
                "features allow. Task inference is how often the predicted class is one of the right "
                "task. The last accuracy can be no higher than either.",
            ),
            figures=(("readings", readings),),
        ),
        confusion
        and ReportSection(
            "Confusion",
            (
                "After the last task, for the first seed, in order of arrival; by task where there "
                f"are more than {MOST_CLASSES} classes.",
            ),
            figures=confusion,
        ),
        _spectra(stream),
        _selection(stream),
        _drift(rows),
        _cost(stream, rows),
        _time_to_accuracy(stream),
        published and _published(published),
    ]
    return [section for section in sections if section]


def _setting(stream: StreamRuns) -> ReportSection:
    settings = settings_of(stream)
    blind = [str(run.folder) for run in stream.runs if not run.config]
    return ReportSection(
        "Setting",
        tuple(f"The configuration of {one} is not at hand (no config.toml)." for one in blind),
        _with_rows(
            NamedTable("setting-differs", settings.differing, "What differs"),
            NamedTable("setting-shared", settings.shared, "What all share", folded=True),
            NamedTable("setting-own", settings.own, "Options of the methods", folded=True),
        ),
    )


def _spectra(stream: StreamRuns) -> ReportSection | None:
    """Of the first seed of each variant whose method keeps Grams."""
    texts: list[str] = []
    tables: list[NamedTable] = []
    figures: list[tuple[str, Figure]] = []
    for run in (variant[0] for variant in stream.variants):
        label = stream.label(run)
        if "rank_rule" not in run.config:
            continue
        if not run.model.exists():
            texts.append(f"{label}: left out, the run has no saved model ('{run.model}').")
            continue
        try:
            spectra = read_spectra(run.model, run.config)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            texts.append(f"{label}: left out, '{run.model}' cannot be read ({reason}).")
            continue
        if run.config.get("conditions") == "exact":
            texts.append(
                f"{label}: its conditions are exact, so the null spaces it used are those of Grams "
                "scaled by the LayerNorm; shown are the Grams as they were accumulated."
            )
        by_side: dict[str, list[BlockSpectrum]] = {}
        for one in spectra:
            by_side.setdefault(one.side, []).append(one)
        number = f"-{len(tables) + 1}"
        title = f"Nullity, {label}, seed {run.seed}"
        tables.append(NamedTable(f"nullity{number}", _nullities(by_side), title))
        for side, members in by_side.items():
            figures.append(
                (f"spectrum{number}-{side}", spectrum_figure(members, f"{label}: {side}"))
            )
    if not texts and not tables:
        return None
    about = (
        "Eigenvalues of what the model keeps of old features, over the largest one of the block. From "
        "the dot on, directions belong to the null space; its dimension is the nullity."
    )
    return ReportSection("Spectra and null spaces", (about, *texts), tuple(tables), tuple(figures))


def _nullities(by_side: Mapping[str, Sequence[BlockSpectrum]]) -> TextTable:
    blocks = sorted({one.block for members in by_side.values() for one in members})
    cells = {
        (side, one.block): f"{one.nullity} of {len(one.values)}"
        for side, members in by_side.items()
        for one in members
    }
    lines = [
        [f"block {block}", *(cells.get((side, block), MISSING) for side in by_side)]
        for block in blocks
    ]
    return TextTable.plain(["block", *by_side], lines, "l" + "r" * len(by_side))


def _selection(stream: StreamRuns) -> ReportSection | None:
    lines = []
    for variant in stream.variants:
        entries = [run.entries[0] for run in variant]
        if any(entry.get(key) is not None for entry in entries for key in _SELECTION):
            cells = [_mean(entries, key, *shape[1:]) for key, shape in _SELECTION.items()]
            lines.append([stream.label(variant[0]), *cells])
    if not lines:
        return None
    heads = ["method", *(shape[0] for shape in _SELECTION.values())]
    about = (
        "How prompts were chosen for all test images after the last task, means over places. Entropy: "
        "1 where all prompts are chosen alike, 0 for one. Task information: what the choice tells of "
        "the true task, 1 for all of it."
    )
    table = NamedTable("selection", TextTable.plain(heads, lines, "lrrr"))
    return ReportSection("Selection", (about,), (table,))


def _drift(rows: Sequence[ComparisonRow]) -> ReportSection | None:
    """Of the heads that follow their features, or whose bound is known by a diagnosis."""
    heads, named = name_columns(rows)
    lines = []
    for row, names in zip(rows, named, strict=True):
        entries = row.group.entries
        drifts = [one for entry in entries for one in entry.get("drift", ())]
        bounds = [entry.get("diagnosis") or {} for entry in entries]
        bound = _mean(bounds, "all_seen_last_accuracy", 100.0, 1)
        if drifts or bound != MISSING:
            followed = [_mean(drifts, key, factor, 1) for key, factor in _DRIFT.items()]
            lines.append([*names, *followed, _mean(entries, "last_accuracy", 100.0, 1), bound])
    if not lines:
        return None
    about = (
        "How far the features of a task's images moved while it was learned, over their own spread, "
        "and how much of that the map tells of classes or images that it was not fitted on; means "
        "over tasks. All seen: the head fitted at the end to all training images, a bound that no "
        "learner may reach for (run --diagnose)."
    )
    align = "l" * len(heads) + "rrrr"
    heads = [*heads, "drift %", "explained %", "last accuracy %", "all seen %"]
    table = NamedTable("drift", TextTable.plain(heads, lines, align))
    return ReportSection("Drift of the features", (about,), (table,))


def _cost(stream: StreamRuns, rows: Sequence[ComparisonRow]) -> ReportSection:
    heads, named = name_columns(rows)
    lines = []
    for row, names in zip(rows, named, strict=True):
        costs = [entry.get("cost") or {} for entry in row.group.entries]
        lines.append(
            [
                *names,
                _mean(costs, "trainable_parameters", 1.0, 0),
                _mean(costs, "state_bytes", 1 / _KIB, 1),
                _mean(row.group.entries, "seconds", 1.0, 1),
            ]
        )
    align = "l" * len(heads) + "rrr"
    heads = [*heads, "trainable parameters", "state, KiB", "time, s"]
    about = (
        "State is what method and head keep beside the frozen backbone. The time is that of the whole "
        "run, all of its heads; times of different machines do not compare."
    )
    cost = NamedTable("cost", TextTable.plain(heads, lines, align))
    runs = NamedTable("runs", list_runs(stream), "Runs", folded=True)
    return ReportSection("Cost and time", (about,), (cost, runs))


def _time_to_accuracy(stream: StreamRuns) -> ReportSection | None:
    """Of methods that train, where something frozen has the same head."""
    found = times_to_accuracy(stream)
    if not found:
        return None
    lines = []
    for one in found:
        passed, tried = one.passed, ", ".join(str(budget.epochs) for budget in one.budgets)
        reached = "never" if passed is None else f"{passed.seconds:,.1f}"
        epochs = MISSING if passed is None else str(passed.epochs)
        target = f"{100 * one.frozen.accuracy:.1f} ({one.frozen_label})"
        lines.append([one.label, target, f"{one.frozen.seconds:,.1f}", reached, epochs, tried])
    heads = ["method", "to pass %", "its time, s", "passed after, s", "epochs", "epochs tried"]
    about = (
        "Seconds of the shortest run that ends above the best method that trains nothing, under the "
        "same head (what a head does about drift apart: frozen features have none). Every number of "
        "epochs is a run of its own, timed as a whole; never: none of these runs does."
    )
    table = NamedTable("time-to-accuracy", TextTable.plain(heads, lines, "llrrrr"))
    figures = _numbered("time-to-accuracy", time_figures(found))
    return ReportSection("Time to accuracy", (about,), (table,), figures)


def _published(published: PublishedComparison) -> ReportSection:
    comparable = NamedTable("published", published.comparable(), "Comparable")
    others = NamedTable(
        "published-others", published.others(), "Not comparable, and why", folded=True
    )
    texts = [
        "Published accuracies are last accuracies, forgetting is the papers'. Whether a row compares "
        "follows from our configuration and what is stated of theirs."
    ]
    if not comparable.content.rows:
        texts.append("Nothing published is comparable with these runs.")
    texts += published.notes
    if published.left_out:
        texts.append(
            f"{published.left_out} published results of other methods on other data sets are left out."
        )
    return ReportSection("Against published numbers", tuple(texts), _with_rows(comparable, others))


def _with_rows(*tables: NamedTable) -> tuple[NamedTable, ...]:
    return tuple(table for table in tables if table.content.rows)


def _mean(values: Sequence[Entry], key: str, factor: float, digits: int) -> str:
    """Return mean ± standard deviation of a figure, where it is known."""
    spread = spread_over(values, key)
    if spread.mean is None:
        return MISSING
    mean = f"{factor * spread.mean:,.{digits}f}"
    return f"{mean} ± {factor * spread.std:,.{digits}f}" if spread.std else mean


def _numbered(name: str, figures: Iterable[Figure | None]) -> tuple[tuple[str, Figure], ...]:
    drawn = [figure for figure in figures if figure]
    return tuple((f"{name}-{place}", figure) for place, figure in enumerate(drawn, start=1))
