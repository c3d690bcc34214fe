"""Runs: from a configuration to a folder of results, for one seed or several."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.atomic import alone, check_place, is_leftover
from perdure.backbones.attention import Kernel
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.build import make_backbone, make_stream, with_text
from perdure.engine.config import Config, load_config
from perdure.engine.diagnose import check_diagnosable
from perdure.engine.diagnose import diagnose as diagnosis_of
from perdure.engine.events import Event, EventLog, Sink, ignore
from perdure.engine.folder import claim_folder, kernel_of, preset_of, write_environment
from perdure.engine.launch import joined, versions
from perdure.engine.model import Model
from perdure.engine.ranks import refuse_differences
from perdure.engine.run import Outcome, Run, plan
from perdure.engine.training import learning_mode
from perdure.learner import ContinualClassifier
from perdure.learner.history import History, Lesson
from perdure.metrics import summarise
from perdure.reports.figures.comparison import draw
from perdure.reports.results.files import RESULTS, read_results, write_all, write_results
from perdure.reports.results.groups import Entry
from perdure.reports.results.tensorboard import check_logger, logged
from perdure.streams import Stream


@dataclass(frozen=True)
class Finished:
    """Results and folder of a finished run.

    Attributes:
        folder: where its files are.
        entries: one per head, as in ``results.json``.
        already: whether it was finished before and nothing had to be done.
    """

    folder: Path
    entries: list[Entry]
    already: bool = False

    @property
    def classifier(self) -> ContinualClassifier:
        """The learned classifier, read from the folder."""
        return ContinualClassifier.load(self.folder / "model")


@learning_mode()
def run(
    what: str | Config,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    diagnose: bool = False,
    on_event: Sink = ignore,
    **overrides: Any,
) -> Finished:
    """Run a preset, a TOML file or a configuration; results are written to a folder.

    Args:
        what: a preset (``digits/nsp2``), a file that ends in ``.toml``, or a configuration.
        out: the folder; ``runs/<preset>`` by default.
        resume: go on with the run found there; start if there is none; do nothing if it is finished.
        diagnose: tell, once learning is done, what the choice of prompts knows of the task, for
            methods that select, and what stale statistics cost, for heads in closed form. Training
            images of old tasks are looked at, nothing is learned.
        on_event: receives the events.
        **overrides: keys of the configuration, as ``epochs=2``.

    Of several processes (`perdure.engine.launch`) every one calls this, and rank 0 alone reads and
    writes the folder.

    Raises:
        PerdureError: what cannot work is refused before anything is computed.
    """
    config = load_config(what) if isinstance(what, str) else what
    config = config.replace(**overrides) if overrides else config
    path = Path(out) if out is not None else default_folder(config)
    ranks = joined(config.runtime)
    begun = ranks.from_first(lambda: preset_of(path, config)) if resume else config.preset
    config = dataclasses.replace(config, preset=begun)
    on_event = on_event if ranks.first else ignore
    refuse_differences(ranks, {**versions(), **_shared_keys(config)}, "versions and keys")

    def checked() -> list[Entry] | None:
        if diagnose:
            check_diagnosable(config)
        check_logger(config.runtime.logger)
        check_folder(path, config, resume)
        results = path / RESULTS
        return read_results(results) if results.exists() else None

    entries = ranks.from_first(checked)
    if entries is not None:
        finished = Finished(path, entries, already=True)
        if not diagnose or "diagnosis" in entries[0] or not ranks.first:
            return finished
        return _diagnose_finished(finished, config, on_event)
    # What cannot work is refused before the folder is claimed: the corrected command finds it free.
    here = config if ranks.device is None else config.replace(device=str(ranks.device))
    backbone = make_backbone(here, on_event)
    kept = ranks.from_first(lambda: _kernel(path, config) or backbone.kernel)
    if kept != backbone.kernel:
        backbone.use_kernel(kept)
    stream = with_text(make_stream(config), config)
    refuse_differences(ranks, _shared_images(stream, backbone), "images and precision")
    if not ranks.first:
        outcome = Run(config, stream, backbone, ranks=ranks)()
        return Finished(path, make_entries(config, stream, outcome))
    with (
        alone(path, "running"),
        logged(config.runtime.logger, path, on_event) as on_logged,
    ):
        sink = EventLog(path / "events.jsonl", on_logged)
        going = Run(config, stream, backbone, path / "checkpoints", sink, ranks)
        claim_folder(path, config, resume)
        write_environment(path, backbone.device, backbone.kernel, ranks.count, config.preset)
        sink(announced(config, stream))
        for note in stream.notes:
            sink(Event("note", fields={"text": note}))
        outcome = going()
        entries = make_entries(config, stream, outcome)
        _leave(path, outcome, entries, history_of(stream, entries))
        sink(Event("done", fields={"seconds": round(outcome.seconds, 1)}))
        if diagnose:
            _add_diagnosis(path, entries, outcome.model, stream, sink)
    return Finished(path, entries)


def _kernel(path: Path, config: Config) -> Kernel | None:
    """The kernel that a run in the folder has computed with, where the configuration names none."""
    return kernel_of(path) if config.runtime.attention == "auto" else None


def _shared_keys(config: Config) -> dict[str, Any]:
    """Keys that all processes of a run have in common."""
    own = ("device", "workers", "devices", "nodes")
    return {key: value for key, value in config.flat().items() if key not in own}


def _shared_images(stream: Stream, backbone: FrozenBackbone) -> dict[str, Any]:
    """What all processes of a run have in common once they have read their images."""
    names = hashlib.sha256(repr(stream.class_names).encode()).hexdigest()[:16]
    sizes = [[len(part or ()) for part in (d.train, d.val, d.test)] for d in stream.tasks]
    return {"precision": backbone.precision, "digest of class names": names, "sizes": sizes}


def run_seeds(config: Config, seeds: Sequence[int], out: Path, **options: Any) -> list[Finished]:
    """Run the same configuration once per seed, each in ``out/seed-N``; options are those of `run`."""
    return [run(one, folder, **options) for folder, one in of_seeds(config, seeds, out).items()]


def of_seeds(config: Config, seeds: Sequence[int], out: Path) -> dict[Path, Config]:
    """Return the folder of every run: ``out/seed-N`` where there are seeds, else ``out`` itself."""
    runs = {out / f"seed-{seed}": config.replace(seed=seed) for seed in seeds}
    return runs or {out: config}


def default_folder(config: Config) -> Path:
    """Return ``runs/<preset>``, or ``runs/<method>`` without a preset."""
    name = config.preset or config.training.method
    return Path("runs") / Path(name).stem if name.endswith(".toml") else Path("runs") / name


def check_folder(path: Path, config: Config, resume: bool) -> None:
    """Refuse a folder that a run could not use; nothing is created.

    Raises:
        OutputError: it is a file, cannot be written, or holds something and ``resume`` is off.
        CheckpointError: it holds a run of another configuration.
    """
    if check_place(path) == path and not all(is_leftover(one.name) for one in path.iterdir()):
        claim_folder(path, config, resume)


def check(config: Config) -> Stream:
    """Dry run: load the stream and lay out the stages, compute nothing.

    Raises:
        PerdureError: what would stop the run.
    """
    check_logger(config.runtime.logger)
    stream = with_text(make_stream(config, fetch=False), config, fetch=False)
    plan(stream, config)
    return stream


def make_entries(config: Config, stream: Stream, outcome: Outcome) -> list[Entry]:
    """Return the entries of ``results.json``, one per evaluated head."""
    method = outcome.model.method
    state = outcome.model.state()
    common = {
        "preset": config.preset,
        "sees_old_images": method.traits.cumulative,
        "stream": config.stream.source,
        "backbone": outcome.model.backbone.name,
        "seed": config.training.seed,
        "config_hash": config.hash(),
        "chosen_on": config.training.chosen_on,
        "class_order": list(stream.class_order),
        "class_names": list(stream.class_names),
        "task_sizes": list(stream.sizes),
        "domains": list(stream.domains),
        "test_counts": [len(data.test) for data in stream.tasks],
        "seconds": round(outcome.seconds, 2),
        **outcome.selection,
    }
    entries = []
    for head, counts in outcome.counts.items():
        anchored = outcome.model.heads[head].drift in ("anchored", "mixed")
        parts = ("method.", f"heads.{head}.", *(["anchors."] if anchored else []))
        names = [k for k in state if k.startswith(parts)]
        cost = {
            "trainable_parameters": sum(p.numel() for p in method.parameters()),
            "state_bytes": sum(state[k].nbytes for k in names),
        }
        entry = {"method": config.training.method, "head": head, **common, **summarise(counts)}
        entry["cost"] = cost
        if drift := [one for one in outcome.drift if one["head"] == head]:
            entry["drift"] = [{k: v for k, v in one.items() if k != "head"} for one in drift]
        entries.append(entry)
    return entries


def history_of(stream: Stream, entries: Sequence[Entry]) -> History:
    """Return a model's history after a run: a lesson per task, measured on the test images."""
    lessons = []
    for index, data in enumerate(stream.tasks):
        counts = Counter(data.train.labels.tolist())
        curves = {entry["head"]: entry["accuracy_curve"][index] for entry in entries}
        accuracy = {head: share for head, share in curves.items() if share is not None}
        tested = sum(len(known.test) for known in stream.tasks[: index + 1])
        lessons.append(
            Lesson(
                images={
                    name: counts[label]
                    for label, name in zip(data.task.classes, data.task.names, strict=True)
                },
                new=data.task.names,
                held_out=tested if accuracy else 0,
                accuracy=accuracy,
            )
        )
    return History(tuple(lessons))


def _diagnose_finished(finished: Finished, config: Config, on_event: Sink) -> Finished:
    """Diagnose the model that a finished run has left."""
    backbone = make_backbone(config, on_event)
    stream = make_stream(config)
    with alone(finished.folder, "running"):
        model = ContinualClassifier.load(finished.folder / "model", backbone).model
        sink = EventLog(finished.folder / "events.jsonl", on_event)
        sink(announced(config, stream))
        _add_diagnosis(finished.folder, finished.entries, model, stream, sink)
    return Finished(finished.folder, finished.entries)


def announced(config: Config, stream: Stream) -> Event:
    """Return the event that a run begins with; displays take from it what there is to learn."""
    fields = {
        "method": config.training.method,
        "sizes": list(stream.sizes),
        "classes": len(stream.class_names),
        "domains": list(stream.domains),
    }
    return Event("run", fields=fields)


def _add_diagnosis(
    folder: Path, entries: list[Entry], model: Model, stream: Stream, sink: Sink
) -> None:
    """Add the diagnosis to results that are written already."""
    diagnosis = diagnosis_of(model, stream.tasks, sink)
    for entry in entries:
        entry["diagnosis"] = {
            "task_accuracy": diagnosis.task_accuracy,
            "task_chance": diagnosis.task_chance,
            "oracle_last_accuracy": diagnosis.oracle_accuracy.get(entry["head"]),
            "all_seen_last_accuracy": diagnosis.all_seen_accuracy.get(entry["head"]),
        }
    write_results(folder / RESULTS, entries)
    sink(Event("diagnosis", fields=dataclasses.asdict(diagnosis)))


def _leave(folder: Path, outcome: Outcome, entries: list[Entry], history: History) -> None:
    """Write all result files; ``results.json`` last, because it marks the run as finished."""
    classifier = ContinualClassifier.from_model(outcome.model, history)
    classifier.save(folder / "model", keep_versions=0)
    draw(entries, folder / "results.png")
    write_all(folder, entries, entries[0]["class_names"])
