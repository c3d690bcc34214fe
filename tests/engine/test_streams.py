"""Streams over domains and with long tails, learned to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from perdure.engine.build import make_backbone, make_stream, with_text
from perdure.engine.config import Config, make_config
from perdure.engine.diagnose import diagnose
from perdure.engine.events import Event
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.errors import ConfigError
from perdure.experiment import run
from perdure.learner import ContinualClassifier
from perdure.learner.class_columns import ClassColumns
from perdure.streams import StreamConfig, load_source
from perdure.testing.trial import make_trial
from perdure.tuning import validation_stream
from tests.tiny import SMALL

CLASSES, DOMAINS = ("ant", "bee", "cat", "dog"), ("paint", "photo")

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of drawn images, three for training and one for testing in either domain."""
    folder = tmp_path_factory.mktemp("domains")
    drawn = load_source(StreamConfig("synthetic"), seed=0)
    lines = ["path,label,domain,split"]
    for label, name in enumerate(CLASSES):
        images = np.flatnonzero(drawn.train.labels == label)
        for place, domain in enumerate(DOMAINS):
            for number in range(4):
                picture = drawn.train.image(int(images[4 * place + number]))
                if domain == "paint":
                    picture = picture.transpose(Image.Transpose.ROTATE_90)
                file = f"{name}-{domain}-{number}.png"
                picture.save(folder / file)
                lines.append(f"{file},{name},{domain},{'train' if number else 'test'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def config(method: str, table: Path, **changes: Any) -> Config:
    values = {**SMALL, "method": method, "data": str(table), "increment": "domains", "epochs": 1}
    del values["images_per_class"], values["test_images_per_class"]
    return make_config({**values, "class_order": "sorted", **changes})


class Stop(Exception):
    pass


@pytest.mark.long
def test_a_run_over_domains_names_every_class_once(table: Path, tmp_path: Path) -> None:
    asked = config("nsp2", table)
    finished = run(asked, tmp_path / "run")
    entry = finished.entries[0]
    assert entry["task_sizes"] == [4, 4]
    assert entry["domains"] == list(DOMAINS)
    assert entry["class_names"] == list(CLASSES)
    assert np.shape(entry["confusion"]) == (4, 4)
    lines = (finished.folder / "confusion-linear.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["true class", *CLASSES]
    about = json.loads((finished.folder / "model" / "classes.json").read_text())
    assert about["classes"] == [*CLASSES, *CLASSES]
    assert about["tasks"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert ContinualClassifier.load(finished.folder / "model").classes_.tolist() == list(CLASSES)


@pytest.mark.long
@pytest.mark.parametrize("method", ["nsp2", "lda", "finetune"])
def test_right_is_what_has_the_right_name(method: str, table: Path) -> None:
    asked = config(method, table, epochs=3, lr=0.03)
    stream = make_stream(asked)
    outcome = Run(asked, stream, make_backbone(asked))()
    classifier = ContinualClassifier.from_model(outcome.model)
    counts = outcome.counts[asked.head_names[-1]]
    for place, data in enumerate(stream.tasks):
        pictures = [data.test.images.image(int(index)) for index in data.test.indices]
        assert classifier.logits(pictures).shape == (4, 4)
        right = [
            name == CLASSES[label - 4 * place]
            for name, label in zip(
                classifier.predict(pictures), data.test.labels.tolist(), strict=True
            )
        ]
        assert sum(right) == counts.correct[-1, place]
    assert counts.total[-1].tolist() == [4, 4]
    assert int(np.trace(counts.confusion)) == int(counts.correct[-1].sum()) > 2  # chance


def test_a_class_is_scored_by_the_best_of_its_domains(table: Path) -> None:
    trial = make_trial("lda", (2,))
    model = Model(trial.backbone, trial.config)
    for data in make_stream(config("lda", table)).tasks:
        model.start_task(data.task)
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 0.5, 1.5, -1.0]])
    columns = ClassColumns(model.label_names)
    assert columns.class_scores(logits).tolist() == [[4.0, 1.0, 2.0, 3.0]]
    assert columns.of(torch.arange(8)).tolist() == [0, 1, 2, 3] * 2
    assert columns.labels(columns.names[1]) == (1, 5)


@pytest.mark.long
def test_an_interrupted_run_over_domains_goes_on(table: Path, tmp_path: Path) -> None:
    asked = config("nsp2", table, heads=["linear", "gaussian"], checkpoint_every=2)
    stream, backbone = make_stream(asked), make_backbone(asked)
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "progress" and event.fields["phase"] == "training"
        if steps == 6:  # of 3 per domain
            raise Stop

    with pytest.raises(Stop):
        Run(asked, stream, backbone, tmp_path, stop)()
    straight, resumed = (Run(asked, stream, backbone, f)() for f in (None, tmp_path))
    for name, tensor in straight.model.state().items():
        assert torch.equal(tensor, resumed.model.state()[name])
    assert resumed.counts == straight.counts
    assert all(counts.repeats for counts in resumed.counts.values())


@pytest.mark.parametrize("method", ["nsp2", "lda", "finetune"])
def test_classes_and_domains_change_together(method: str, table: Path) -> None:
    asked = config(method, table, increment="classes+domains", tasks="2+2")
    stream = make_stream(asked)
    assert stream.domains == DOMAINS
    outcome = Run(asked, stream, make_backbone(asked))()
    assert outcome.model.label_names == CLASSES
    for counts in outcome.counts.values():
        assert counts.total[-1].tolist() == [2, 2]
        assert counts.confusion.shape == (4, 4)


def test_a_search_over_domains_looks_at_validation_images(table: Path) -> None:
    stream = validation_stream(config("nsp2", table, validation_fraction=0.4))
    assert stream.repeats
    assert [len(data.test) for data in stream.tasks] == [4, 4]
    assert not set(stream.tasks[0].test.names) & set(stream.tasks[0].train.names)


def test_the_union_of_domains_is_trained_on_all_of_them(table: Path) -> None:
    asked = config("joint", table)
    stream = make_stream(asked)
    outcome = Run(asked, stream, make_backbone(asked))()
    assert [task.names for task in outcome.model.tasks] == [CLASSES + CLASSES]
    assert outcome.counts["linear"].after.tolist() == [1]


def test_a_class_has_one_text_in_all_domains(table: Path, tmp_path: Path) -> None:
    texts = torch.eye(8)[: len(CLASSES)]
    file = tmp_path / "texts.safetensors"
    save_file({name: row.clone() for name, row in zip(CLASSES, texts, strict=True)}, file)
    asked = config("clip_zero_shot", table, text_features=str(file), class_order="pilot")
    stream = with_text(make_stream(asked), asked)
    for data in stream.tasks:
        assert data.task.text_features is not None
        assert torch.equal(data.task.text_features, texts[list(stream.class_order)])
    union = stream.upto(1).task.text_features
    assert union is not None
    assert union.shape == (8, 8)


def test_prompts_of_domains_are_diagnosed(table: Path) -> None:
    asked = config("dualprompt", table)
    stream = make_stream(asked)
    outcome = Run(asked, stream, make_backbone(asked))()
    found = diagnose(outcome.model, stream.tasks)
    assert found.task_chance == 0.5
    assert 0 <= found.oracle_accuracy["linear"] <= 1


@pytest.mark.parametrize(
    ("method", "heads"),
    [
        ("nsp2", ["linear", "gaussian"]),
        ("lda", ["gaussian"]),
        ("ncm", ["ncm"]),
        ("finetune", ["linear"]),
        ("clip_nsp2", ["language"]),
    ],
)
def test_classes_of_a_single_image(method: str, heads: list[str]) -> None:
    trial = make_trial(method, (2, 2), images=1, heads=heads)
    outcome = trial.run()
    for head, logits in outcome.model.logits(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).items():
        assert head in heads
        assert logits.shape == (1, 4)
        assert bool(logits.isfinite().all())


@pytest.mark.parametrize("method", ["nsp2", "lda", "finetune"])
def test_a_long_tail_is_learned(method: str) -> None:
    asked = make_config({**SMALL, "method": method, "epochs": 1, "imbalance": 8, "tasks": "5+5"})
    stream = make_stream(asked)
    counts = np.bincount(stream.upto(1).train.labels.numpy())
    assert sorted(counts.tolist()) == [1, 1, 1, 2, 2, 3, 4, 5, 6, 8]
    outcome = Run(asked, stream, make_backbone(asked))()
    for counts in outcome.counts.values():
        assert counts.total.tolist() == [[20, 0], [20, 20]]


def test_a_domain_with_one_class_needs_a_closed_form_head(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    few = [line for line in lines if "paint" not in line or "ant" in line.split(",")[1]]
    path = table.with_name("few.csv")
    path.write_text("\n".join(few) + "\n")
    with pytest.raises(ConfigError, match="Task 1 has the single class 'ant'"):
        run(config("nsp2", path), tmp_path / "run")
