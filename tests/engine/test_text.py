"""Text features on their way to the heads: attached, checked, surveyed, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from perdure.engine.build import with_text
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.engine.survey import ImageSurvey, ordered_batches
from perdure.errors import ConfigError, LanguageError
from perdure.learner import ContinualClassifier
from perdure.randomness import generator
from perdure.testing.trial import PROJECTION, Trial, evaluation_pictures, make_trial


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of one vector per class of a trial's stream."""
    return written(tmp_path / "texts.safetensors", PROJECTION)


def written(path: Path, width: int) -> Path:
    names = make_trial("ncm", sizes=(2, 2)).stream.class_names
    vectors = {name: torch.randn(width, generator=generator(0, name)) for name in names}
    safetensors.torch.save_file(vectors, path)
    return path


def guided(method: str, texts: Path) -> Trial:
    trial = make_trial(method, class_embeddings="text", text_features=str(texts))
    return Trial(trial.config, trial.backbone, with_text(trial.stream, trial.config))


@pytest.mark.long
@pytest.mark.parametrize("method", ["clip_nsp2", "clip_joint"])
def test_texts_of_the_file_reach_the_head(method: str, texts: Path) -> None:
    """Those of a union of tasks too."""
    trial = guided(method, texts)
    model = trial.run().model
    held = safetensors.torch.load_file(texts)
    wanted = torch.stack([held[name] for name in trial.stream.class_names])
    torch.testing.assert_close(model.heads["language"].get_buffer("text"), F.normalize(wanted))


@pytest.mark.long
def test_saved_model_predicts_without_the_texts(texts: Path, tmp_path: Path) -> None:
    trial = guided("clip_nsp2", texts)
    classifier = ContinualClassifier.from_model(trial.run().model)
    classifier.save(tmp_path / "model")
    texts.unlink()
    loaded = ContinualClassifier.load(tmp_path / "model", backbone=trial.backbone)
    pictures = evaluation_pictures(trial)[:5]
    assert torch.equal(loaded.logits(pictures), classifier.logits(pictures))


def test_streams_of_other_runs_are_left_as_they_are() -> None:
    for method in ("ncm", "clip_nsp2"):
        trial = make_trial(method)  # class_embeddings=mean
        assert with_text(trial.stream, trial.config) is trial.stream


def test_texts_are_refused_before_anything_is_computed(texts: Path, tmp_path: Path) -> None:
    trial = make_trial("clip_nsp2", class_embeddings="text", text_features=str(texts))
    with pytest.raises(ConfigError, match=r"carry no text features.* take class_embeddings=mean"):
        Run(trial.config, trial.stream, trial.backbone)
    wide = guided("clip_nsp2", written(tmp_path / "wide.safetensors", PROJECTION + 1))
    message = r"wide\.safetensors': these vectors have 17 numbers, .* of 'test_vit.*' gives 16\."
    with pytest.raises(ConfigError, match=message):
        Run(wide.config, wide.stream, wide.backbone)
    larger = make_trial("clip_nsp2", (3, 2), class_embeddings="text", text_features=str(texts))
    with pytest.raises(LanguageError, match=r"no vector for the class .* \(1 of 5 are missing\)"):
        with_text(larger.stream, larger.config)


@pytest.mark.long
def test_plain_features_are_those_of_the_plain_backbone() -> None:
    """Of every image, whatever was learned; where nothing changes features, the pass is shared."""
    trial = make_trial("clip_finetune")
    outcome, data = trial.run(), trial.stream.tasks[1]
    batches = [batch.images for batch in ordered_batches(outcome.model, data.train)]
    wanted = torch.cat([trial.backbone(trial.backbone.normalise(part)).cls for part in batches])
    survey = ImageSurvey(outcome.model, data)
    plain, labels = survey.features(plain=True)
    assert torch.equal(plain, wanted)
    assert torch.equal(labels, data.train.labels)
    assert not torch.equal(survey.features()[0], wanted)
    still = make_trial("clip_zero_shot")
    survey = ImageSurvey(Model(still.backbone, still.config), still.stream.tasks[1])
    assert survey.features(plain=True)[0] is survey.features()[0]
