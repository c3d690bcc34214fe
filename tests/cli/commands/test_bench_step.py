"""`perdure bench step`: the kernel of attention and where a step's time goes."""

from __future__ import annotations

import json

import pytest

from perdure.bench.profile import KINDS, OTHER, kind_of
from tests.cli.command import Perdure

TINY = ("bench", "step", "--backbone", "test_vit", "--img-size", "32", "--pairs", "1", "--profile")


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "linear layers"),
        ("mkldnn::_linear_pointwise", "linear layers"),
        ("aten::baddbmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::gelu_backward", "activations"),
        ("aten::native_layer_norm", "norms"),
        ("aten::copy_", "copies"),
        ("aten::add_", "sums and products"),
        ("aten::topk", OTHER),
    ],
)
def test_operators_have_their_kind_of_work(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind


@pytest.mark.long
def test_a_step_is_profiled_under_the_kernel_asked_for(perdure: Perdure) -> None:
    done = perdure(*TINY, "--attention", "products", "--json")
    report = json.loads(done.out)
    assert report["attention"] == "products"
    assert set(report["profile"]) == {*KINDS, OTHER}
    assert report["profile"]["linear layers"] > 0
    assert report["profile"]["attention"] > 0
