"""Devices that cannot be had here: one without float64, as Apple's mps, by a stand-in; and TF32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from perdure.backbones.catalog import _use_tf32, resolve_device, resolve_precision
from perdure.backbones.frozen import FrozenBackbone, exact_device
from perdure.engine.build import make_backbone
from perdure.errors import ConfigError
from perdure.testing.trial import make_trial
from tests.tiny import small_config


class Elsewhere(torch.Tensor):
    """Tensor of a device that has no float64; only ``to`` an exact device brings it back."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.to and torch.device("cpu") in args[1:]:
            return found.as_subclass(torch.Tensor)
        wide = [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]
        if any(one.dtype == torch.float64 for one in wide):
            raise RuntimeError("this device has no float64")
        return found


@pytest.mark.parametrize(
    ("method", "heads"), [("lda", ("gaussian", "ridge", "ncm")), ("linear", ("linear",))]
)
@pytest.mark.usefixtures("unchecked")
def test_frozen_features_need_no_float64_where_they_are_computed(
    method: str, heads: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial(method, heads=heads)
    here = trial.run()
    normalise, seen = FrozenBackbone.normalise, []

    def elsewhere(self: FrozenBackbone, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return normalise(self, images).as_subclass(Elsewhere)

    monkeypatch.setattr(FrozenBackbone, "normalise", elsewhere)
    there = trial.run()
    assert seen
    for name, value in here.model.state().items():
        assert torch.equal(value, there.model.state()[name]), name
    for head, counts in here.counts.items():
        for name, table in vars(counts).items():
            assert np.array_equal(table, vars(there.counts[head])[name]), (head, name)


def test_the_stand_in_has_no_float64() -> None:
    there = torch.ones(2).as_subclass(Elsewhere)
    assert type((there + 1).to(exact_device(torch.device("cpu")))) is torch.Tensor
    for wide in (there.double, lambda: there + torch.ones(2, dtype=torch.float64)):
        with pytest.raises(RuntimeError, match="no float64"):
            wide()


def test_statistics_of_mps_are_made_on_the_cpu() -> None:
    assert exact_device(torch.device("mps")) == torch.device("cpu")
    assert exact_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this is an Apple processor")
def test_mps_elsewhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="Apple's processors"):
        resolve_device("mps")
    assert resolve_precision("auto", "mps") == "fp32"


def test_prompts_on_mps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"by linear, ncm, lda. Type device=cpu for 'nsp2'"):
        make_backbone(small_config("nsp2", device="mps"))
    with pytest.raises(ConfigError, match="for 'clip_zero_shot'"):
        make_backbone(small_config("clip_zero_shot", device="mps"))


def test_tf32_is_for_cuda_alone_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("tf32", "cpu") == resolve_precision("tf32", "cuda") == "fp32"
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        make_backbone(small_config("lda", precision="tf32"))
        assert products.fp32_precision == before, "no CUDA device computes"
        _use_tf32(True)
        assert products.fp32_precision == "tf32"
        _use_tf32(False)
        assert products.fp32_precision == "ieee"
    finally:
        products.fp32_precision = before
