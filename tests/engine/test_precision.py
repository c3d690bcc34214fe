"""Compute types: surveys in that of the run, and a bf16 that is emulated is told."""

from __future__ import annotations

import pytest
import torch

from perdure.backbones import attention
from perdure.engine import build
from perdure.engine.build import make_backbone, make_stream
from perdure.engine.events import Event
from perdure.engine.model import Model
from perdure.engine.run import Run
from perdure.engine.survey import ImageSurvey
from perdure.errors import ConfigError
from perdure.types import BlockView
from tests.tiny import small_config


class Dtypes:
    """Observer that notes the types of what it is shown."""

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def start_batch(self, *_: object) -> None: ...

    def block(self, index: int, view: BlockView) -> None:
        self.seen |= {v.dtype for v in vars(view).values() if isinstance(v, torch.Tensor)}

    def merge(self, other: Dtypes) -> None: ...


def test_surveys_in_bf16_give_float32_within_its_rounding() -> None:
    features = {}
    for kind in ("fp32", "bf16", "auto"):
        config = small_config(
            "finetune", precision="bf16", survey_precision=kind, tasks="5+5", attention="fused"
        )
        model, data = Model(make_backbone(config), config), make_stream(config).tasks[0]
        model.start_task(data.task)
        survey, observer = ImageSurvey(model, data), Dtypes()
        survey(observer)
        features[kind] = survey.features("train")[0]
        assert observer.seen == {torch.float32}
        assert survey.plain_readouts().dtype == features[kind].dtype == torch.float32
    assert torch.equal(features["bf16"], features["auto"])
    apart = (features["bf16"] - features["fp32"]).norm() / features["fp32"].norm()
    assert 1e-5 < float(apart) < 2e-2


@pytest.mark.long
@pytest.mark.parametrize("method", ["nsp2", "iprompt"])
def test_a_run_with_surveys_in_bf16(method: str) -> None:
    config = small_config(method, precision="bf16", survey_precision="auto", tasks="5+5", epochs=1)
    outcome = Run(config, make_stream(config), make_backbone(config))()
    assert all(value.isfinite().all() for value in outcome.model.state().values())


@pytest.mark.parametrize(
    ("heads", "wanted", "precision"),
    [
        ("gaussian", "auto", "bf16"),
        ("gaussian", "fp32", "fp32"),
        ("gaussian,gaussian(drift=linear)", "auto", "fp32"),
        ("gaussian(drift=linear)", "bf16", "bf16"),
    ],
)
def test_auto_surveys_in_float32_where_a_head_follows_drift(
    heads: str, wanted: str, precision: str
) -> None:
    config = small_config("nsp2", precision="bf16", survey_precision=wanted, heads=heads)
    assert Model(make_backbone(config), config).survey_backbone.precision == precision


def test_surveys_in_bf16_of_a_run_in_fp32_are_refused() -> None:
    with pytest.raises(ConfigError, match="survey_precision=bf16: this run computes in fp32"):
        make_backbone(small_config("nsp2", precision="fp32", survey_precision="bf16"))


def test_an_emulated_bf16_is_told_with_its_measured_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "bf16_units", lambda: False)
    clock = iter([0.0, 1.0] * 5 + [0.0, 3.0] * 5)
    monkeypatch.setattr(attention.time, "perf_counter", lambda: next(clock))
    told: list[Event] = []
    make_backbone(small_config("lda", precision="bf16"), told.append)
    notes = [event.fields["text"] for event in told if event.kind == "note"]
    assert len(notes) == 1
    assert "3.0 times as long as in fp32. Take precision=fp32." in notes[0]
    assert build.emulation(torch.float32, torch.device("cpu")) is None
