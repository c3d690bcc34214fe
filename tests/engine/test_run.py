"""The loop: what it refuses, how it fails, what it leaves."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
import safetensors.torch
import tomli_w
import torch

from perdure.engine.build import make_backbone, make_stream
from perdure.engine.checkpoint import FORMAT, Checkpoints, StoredFile
from perdure.engine.config import Config
from perdure.engine.run import Run, plan
from perdure.errors import (
    CheckpointError,
    ConfigError,
    DivergenceError,
    OutputError,
)
from perdure.experiment import run
from perdure.learner import ContinualClassifier
from perdure.metrics import last_accuracy
from perdure.types import Loss
from tests.engine.interrupted import TWO, Stop, assert_resumes, carry_out, stop_after
from tests.tiny import small_config

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.long
def test_run_leaves_everything(tmp_path: Path) -> None:
    finished = run(
        small_config("nsp2", heads=["linear", "gaussian"], tasks="4+3+3"), tmp_path / "r"
    )
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {
        "config.toml",
        "env.json",
        "events.jsonl",
        "accuracy.csv",
        "results.json",
        "results.md",
        "results.png",
        "model",
        "checkpoints",
    }
    assert [entry["head"] for entry in finished.entries] == ["linear", "gaussian"]
    assert all(entry["task_sizes"] == [4, 3, 3] for entry in finished.entries)
    matrix = finished.entries[0]["accuracy_matrix"]
    assert [sum(value is not None for value in row) for row in matrix] == [1, 2, 3]
    log = (tmp_path / "r" / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in log]
    assert kinds[0] == "run"
    assert kinds[-1] == "done"
    assert "progress" not in kinds


@pytest.mark.long
def test_saved_model_predicts_what_the_run_counted(tmp_path: Path) -> None:
    config = small_config("finetune", heads=["gaussian"], tasks="5+5")
    finished = run(config, tmp_path / "r")
    stream = make_stream(config)
    classifier = ContinualClassifier.load(tmp_path / "r" / "model")
    assert tuple(classifier.classes_) == tuple(sorted(stream.class_names))
    right = total = 0
    for data in stream.tasks:
        images = [data.test.images.image(int(i)) for i in data.test.indices]
        labels = [stream.class_names[label] for label in data.test.labels]
        right += int((classifier.predict(images) == labels).sum())
        total += len(images)
    assert right / total == pytest.approx(finished.entries[0]["last_accuracy"])


@pytest.mark.long
def test_predictions_do_not_depend_on_company(tmp_path: Path) -> None:
    config = small_config("finetune", tasks="5+5", epochs=1)
    outcome = carry_out(config)
    classifier = ContinualClassifier.from_model(outcome.model)
    images = [make_stream(config).tasks[0].test.images.image(i) for i in range(6)]
    together = classifier.logits(images)
    alone = torch.cat([classifier.logits([image]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_finished_run_is_not_repeated(tmp_path: Path) -> None:
    config = small_config("ncm")
    first = run(config, tmp_path / "r")
    again = run(config, tmp_path / "r", resume=True)
    assert again.already
    assert again.entries == json.loads(json.dumps(first.entries))
    with pytest.raises(OutputError, match="--resume"):
        run(config, tmp_path / "r")


@pytest.mark.long
def test_other_configuration_is_refused(tmp_path: Path) -> None:
    run(small_config("ncm"), tmp_path / "r")
    with pytest.raises(CheckpointError, match="seed: 0 there, 1 now"):
        run(small_config("ncm", seed=1), tmp_path / "r", resume=True)
    assert run(small_config("ncm", eval_batch_size=3), tmp_path / "r", resume=True).already


@pytest.mark.long
def test_folder_of_an_earlier_version(tmp_path: Path) -> None:
    """A finished run is found again; one that is not is refused, with the keys that tell why."""
    config, file = small_config("ncm"), tmp_path / "r" / "config.toml"
    run(config, tmp_path / "r")
    written = tomllib.loads(file.read_text())
    source = written.pop("data")
    assert written.pop("attention") == "auto"
    del written["device"]  # neutral: its absence tells nothing
    file.write_text(tomli_w.dumps({**written, "stream": source}))
    assert run(config, tmp_path / "r", resume=True).already
    with pytest.raises(
        CheckpointError, match=r"configuration \(attention: auto there, fused now\)"
    ):
        run(config.replace(attention="fused"), tmp_path / "r", resume=True)
    (tmp_path / "r" / "results.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"keys were others \(stream, attention\): its checkp"
    ):
        run(config, tmp_path / "r", resume=True)


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no config\.toml"):
        run(small_config("ncm"), tmp_path, resume=True)
    with pytest.raises(OutputError, match="not empty"):
        run(small_config("ncm"), tmp_path)


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"[Cc]hoose another"):
        run(small_config("ncm"), tmp_path / "file")


@pytest.mark.long
def test_one_class_task_needs_a_closed_form_head() -> None:
    config = small_config("nsp2", tasks="9+1", images_per_class=4)
    with pytest.raises(ConfigError, match="gaussian"):
        plan(make_stream(config), config)
    outcome = carry_out(config.replace(heads=["gaussian"], epochs=1))
    assert outcome.model.label_names == make_stream(config).class_names


@pytest.mark.long
def test_one_class_task_keeps_prompts_and_updates_statistics() -> None:
    config = small_config("nsp2", data="synthetic:4x32", tasks="2+1+1", heads=["gaussian"])
    backbone = make_backbone(config)
    stream = make_stream(config)
    before, after = (
        Run(config, dataclasses.replace(stream, tasks=stream.tasks[:count]), backbone)().model
        for count in (1, 2)
    )
    old, new = before.method.state_dict(), after.method.state_dict()
    for name in old:
        same = torch.equal(old[name], new[name])
        assert same == (not name.startswith(("gram", "projector", "images"))), name


@pytest.mark.long
def test_joint_fills_the_last_row_or_all() -> None:
    last = carry_out(small_config("joint", **TWO))
    each = carry_out(small_config("joint", train_after="each", **TWO))
    assert last.counts["linear"].after.tolist() == [1]
    assert each.counts["linear"].after.tolist() == [0, 1]
    assert last_accuracy(last.counts["linear"]) == last_accuracy(each.counts["linear"])


def test_nan_names_task_epoch_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("finetune")
    backbone = make_backbone(config)
    stream = make_stream(config)
    calls = 0

    def broken(self: object, *args: object) -> Loss:
        nonlocal calls
        calls += 1
        bad = torch.tensor(float("nan") if calls == 14 else 1.0, requires_grad=True)
        return Loss({"cross_entropy": bad})

    monkeypatch.setattr(config.method_class, "loss", broken)
    with pytest.raises(DivergenceError, match=r"task 2, epoch 2, step 2.*lr="):
        Run(config, stream, backbone, tmp_path)()
    monkeypatch.undo()
    point = Checkpoints(tmp_path, config.hash()).latest()
    assert point is not None
    assert (point.stages_done, point.steps_done) == (1, 3)


@pytest.mark.long
@pytest.mark.parametrize("method", ["finetune", "joint", "linear", "ncm", "lda"])
def test_interrupted_run_resumes_bit_identically(tmp_path: Path, method: str) -> None:
    config = small_config(method, data="synthetic:6x32", tasks="2+2+2")
    backbone = make_backbone(config)
    stream = make_stream(config)
    straight = Run(config, stream, backbone)()
    for steps in (5, 7):
        try:
            Run(config, stream, backbone, tmp_path, stop_after(steps))()  # type: ignore[arg-type]
        except Stop:
            continue
    resumed = Run(config, stream, backbone, tmp_path)()
    ours, theirs = resumed.model.state(), straight.model.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert resumed.counts == straight.counts


@pytest.mark.long
@pytest.mark.parametrize("method", ["nsp2", "linear"])
@pytest.mark.parametrize("steps", [1, 5])
def test_centred_heads_and_known_tokens_resume_bit_identically(
    tmp_path: Path, method: str, steps: int
) -> None:
    blocks = {"prompt_blocks": [-1]} if method == "nsp2" else {}
    config = small_config(method, head_inputs="centred", checkpoint_every=1, **TWO, **blocks)
    assert_resumes(config, tmp_path, steps)


@pytest.mark.long
def test_workers_and_batches_do_not_change_results() -> None:
    config = small_config("finetune", transform="flip_crop", epochs=1, **TWO)
    plain, other = carry_out(config), carry_out(config.replace(workers=2))
    ours, theirs = plain.model.state(), other.model.state()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class TestDamage:
    """Checkpoints that were damaged from outside."""

    @pytest.fixture
    def interrupted(self, tmp_path: Path) -> tuple[Config, Path]:
        config = small_config("finetune", heads=["linear", "gaussian"], **TWO)
        backbone = make_backbone(config)
        stream = make_stream(config)
        with pytest.raises(Stop):
            Run(config, stream, backbone, tmp_path, stop_after(13))()  # type: ignore[arg-type]
        return config, tmp_path

    def newest(self, config: Config, folder: Path) -> Path:
        point = Checkpoints(folder, config.hash()).latest()
        assert point is not None
        assert point.step is not None
        return folder / point.step.name

    @pytest.mark.long
    def test_truncated_file_is_named(self, interrupted: tuple[Config, Path]) -> None:
        config, folder = interrupted
        path = self.newest(config, folder)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(CheckpointError, match=f"{path.name}.*Delete that file"):
            Checkpoints(folder, config.hash()).latest()

    @pytest.mark.long
    def test_deleting_it_goes_back_and_ends_the_same(
        self, interrupted: tuple[Config, Path]
    ) -> None:
        config, folder = interrupted
        self.newest(config, folder).unlink()
        ours = carry_out(config, folder).model.state()
        theirs = carry_out(config).model.state()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    def test_damaged_manifest_is_named(self, interrupted: tuple[Config, Path]) -> None:
        config, folder = interrupted
        (folder / "manifest.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            Checkpoints(folder, config.hash()).latest()

    @pytest.mark.parametrize(
        "points",
        [5, [5], [{"base": "x"}], [{"step": {"name": "../a", "sha256": ""}}], [{"steps_done": -1}]],
    )
    def test_forged_manifest_is_named(self, points: object, tmp_path: Path) -> None:
        manifest = {"format": FORMAT, "config_hash": "0", "points": points}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match=r"manifest\.json' is damaged"):
            Checkpoints(tmp_path, "0").latest()

    def test_endless_manifest_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "manifest.json").write_text("[" * 100_000)
        with pytest.raises(CheckpointError, match=r"manifest\.json' is damaged"):
            Checkpoints(tmp_path, "0").latest()

    @pytest.mark.parametrize("notes", [None, {}, {"notes": "["}, {"notes": "1"}])
    def test_forged_file_is_named(self, notes: dict[str, str] | None, tmp_path: Path) -> None:
        data = safetensors.torch.save({"a": torch.zeros(1)}, notes)
        (tmp_path / "a.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"a\.safetensors' is no checkpoint"):
            Checkpoints(tmp_path, "0").read(StoredFile("a.safetensors", ""))

    @pytest.mark.long
    def test_forged_states_are_named(self, interrupted: tuple[Config, Path]) -> None:
        config, folder = interrupted
        checkpoints = Checkpoints(folder, config.hash())
        point = checkpoints.latest()
        assert point is not None
        assert point.base is not None
        other = checkpoints.save("other", {"x": torch.zeros(1)}, {})
        tensors, _ = checkpoints.read(point.base)
        mute = checkpoints.save("mute", tensors, {})
        forged = {
            "saved state of training does not fit": dataclasses.replace(point, step=other),
            "counts or notes are not whole": dataclasses.replace(point, base=mute),
            "more tasks": dataclasses.replace(point, stages_done=2),
        }
        for text, one in forged.items():
            points = {"config_hash": config.hash(), "points": [dataclasses.asdict(one)]}
            (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, **points}))
            with pytest.raises(CheckpointError, match=text):
                carry_out(config, folder)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OutputError, match="cannot be used"):
            Checkpoints(tmp_path / "file" / "checkpoints", "0").save("a", {}, {})

    def test_other_configuration_is_named(self, interrupted: tuple[Config, Path]) -> None:
        with pytest.raises(CheckpointError, match="another configuration"):
            Checkpoints(interrupted[1], "0" * 16).latest()

    @pytest.mark.long
    def test_full_disk_keeps_the_last_checkpoint(
        self, interrupted: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, folder = interrupted
        before = Checkpoints(folder, config.hash()).latest()

        def full(path: Path, data: bytes) -> None:
            raise OutputError("No space is left.")

        monkeypatch.setattr("perdure.engine.checkpoint.atomic_write", full)
        with pytest.raises(OutputError, match="No space"):
            carry_out(config, folder)
        monkeypatch.undo()
        assert Checkpoints(folder, config.hash()).latest() == before
