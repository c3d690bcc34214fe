"""What is known of a task's images before its first step: tokens and queries, computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from perdure.backbones.vit import FrozenViT
from perdure.engine.build import make_backbone, make_stream
from perdure.engine.model import Model
from perdure.engine.run import plan
from perdure.engine.survey import ImageSurvey, KnownTokens, known_queries, ordered_batches
from perdure.engine.training import Training
from perdure.errors import ConfigError
from tests.engine.interrupted import TWO, assert_resumes, carry_out
from tests.tiny import small_config

pytestmark = pytest.mark.usefixtures("unchecked")


class TestKnownTokens:
    """Blocks that no prompt reaches are run once per image."""

    CONFIG = small_config("finetune", prompt_blocks=[-1], transform="plain", **TWO)

    @pytest.mark.long
    def test_they_save_time_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = carry_out(self.CONFIG).model.state()
        monkeypatch.setattr(KnownTokens, "of", lambda *args: None)
        anew = carry_out(self.CONFIG).model.state()
        for key, value in known.items():
            torch.testing.assert_close(value, anew[key], rtol=1e-3, atol=1e-4)

    def test_images_pass_the_blocks_before_the_first_prompt_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = self.CONFIG.replace(heads="linear,gaussian(drift=mixed)", head_inputs="centred")
        passed, embed = [0], FrozenViT._embed

        def counted(self: FrozenViT, images: Tensor) -> Tensor:
            passed[0] += len(images)
            return embed(self, images)

        monkeypatch.setattr(FrozenViT, "_embed", counted)
        model = Model(make_backbone(config), config)
        for stage in plan(make_stream(config), config):
            training = Training(model, stage.data)
            training.start()
            training.train()
            training.finish()
            assert passed[0] == len(stage.data.train)
            passed[0] = 0

    def test_a_survey_from_them_has_the_same_bits(self) -> None:
        model = Model(make_backbone(self.CONFIG), self.CONFIG)
        data = plan(make_stream(self.CONFIG), self.CONFIG)[0].data
        model.start_task(data.task)
        known = ImageSurvey(model, data, tokens=KnownTokens(model, data))
        anew = ImageSurvey(model, data)
        for plain in (False, True):
            assert torch.equal(known.features(plain=plain)[0], anew.features(plain=plain)[0])
        assert torch.equal(known.plain_readouts(), anew.plain_readouts())

    @pytest.mark.parametrize(
        ("options", "block"),
        [
            ({"prompt_blocks": [-1]}, 5),
            ({"prompt_blocks": [3, 1]}, 1),
            ({"prompt_blocks": [0, 3]}, None),
            ({"prompt_blocks": []}, None),
            ({"prompt_blocks": [-1], "transform": "flip_crop"}, None),
        ],
    )
    def test_they_are_those_of_the_first_prompted_block(
        self, options: dict[str, Any], block: int | None
    ) -> None:
        config = small_config("finetune", **{"transform": "plain", **options})
        backbone = make_backbone(config)
        stage = plan(make_stream(config), config)[0]
        tokens = KnownTokens(Model(backbone, config), stage.data).of(backbone)
        assert (tokens and tokens.block) == block

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backbone = make_backbone(self.CONFIG)
        data = plan(make_stream(self.CONFIG), self.CONFIG)[0].data
        model = Model(backbone, self.CONFIG)
        tokens = KnownTokens(model, data).of(backbone)
        assert tokens is not None
        monkeypatch.setattr("perdure.engine.survey.MOST_BYTES", tokens.tokens.nbytes)
        assert KnownTokens(model, data).of(backbone) is not None
        monkeypatch.setattr("perdure.engine.survey.MOST_BYTES", tokens.tokens.nbytes - 1)
        assert KnownTokens(model, data).of(backbone) is None


class TestCachedQueries:
    """Two-pass methods may run the plain pass once per image."""

    CONFIG = small_config("l2p", cache_queries=True, transform="plain", **TWO)

    def test_they_are_those_of_the_plain_backbone(self) -> None:
        backbone = make_backbone(self.CONFIG)
        data = plan(make_stream(self.CONFIG), self.CONFIG)[0].data
        queries = known_queries(Model(backbone, self.CONFIG), data)
        batch = next(ordered_batches(Model(backbone, self.CONFIG), data.train))
        expected = backbone(backbone.normalise(batch.images)).cls
        assert queries is not None
        torch.testing.assert_close(queries[: len(batch.labels)], expected)
        assert (
            known_queries(Model(backbone, self.CONFIG.replace(cache_queries=False)), data) is None
        )

    @pytest.mark.long
    def test_they_save_time_only(self) -> None:
        kept = carry_out(self.CONFIG).model.state()
        anew = carry_out(self.CONFIG.replace(cache_queries=False)).model.state()
        for key, value in kept.items():
            torch.testing.assert_close(value, anew[key], rtol=1e-3, atol=1e-4)

    @pytest.mark.long
    @pytest.mark.parametrize("steps", [1, 5])
    def test_resumed_run_is_bit_identical(self, tmp_path: Path, steps: int) -> None:
        assert_resumes(self.CONFIG.replace(checkpoint_every=1), tmp_path, steps)

    @pytest.mark.long
    def test_every_training_image_passes_the_plain_backbone_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed: dict[bool, int] = {}
        plain = FrozenViT.forward

        def counted(self: FrozenViT, images: Any, additions: Any = None, *rest: Any) -> Any:
            if additions is None:
                passed[kept] += len(images)
            return plain(self, images, additions, *rest)

        monkeypatch.setattr(FrozenViT, "__call__", counted)
        for kept in (True, False):
            passed[kept] = 0
            carry_out(self.CONFIG.replace(cache_queries=kept))
        stream = make_stream(self.CONFIG)
        trained = sum(len(data.train) for data in stream.tasks)
        assert passed[False] - passed[True] == (self.CONFIG.training.epochs - 1) * trained

    def test_they_are_refused_where_images_are_augmented(self) -> None:
        with pytest.raises(ConfigError, match=r"transform 'flip_crop' augments.*transform=plain"):
            self.CONFIG.replace(transform="flip_crop")
