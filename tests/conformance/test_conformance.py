"""Every registered method and every registered head passes every check."""

from __future__ import annotations

import pytest

from perdure.heads import HEADS
from perdure.methods import METHODS
from perdure.testing import ALL_CHECKS, HEAD_CHECKS, Check
from perdure.testing.learning import check_beats_chance, check_resume
from perdure.testing.prediction import check_alone_in_batch
from perdure.testing.protection import check_projection

BY_PRODUCTS = [
    (check_projection, "nsp2"),
    *((check_alone_in_batch, name) for name in ("coda_prompt", "iprompt", "l2p", "nsp2")),
]
"""What is also checked by default with attention as two products and a softmax."""
WITH_OPTIONS = [
    "gaussian(shrinkage=loo)",
    "gaussian(mirrored=true,shrinkage=loo)",
    "gaussian(shrinkage=validation)",
    "gaussian(drift=linear,drift_debias=0.5)",
    "gaussian(mean_shrinkage=2)",
    "gaussian(mean_shrinkage=1,shrinkage=loo,mirrored=true)",
    "gaussian(drift=mixed,drift_debias=1,shrinkage=loo)",
    "gaussian(lift=cosine,lift_width=300)",
    "gaussian(lift=relu,lift_width=20,shrinkage=loo)",
    "language(refine_epochs=0)",
    "linear(head_inputs=centred)",
    "linear(head_init=fresh)",
    "ridge(ridge_ratio=0.01)",
    "ridge(lift=cosine,lift_width=300)",
    "ridge(lift=relu,lift_width=20)",
]


LONG = (check_resume, check_beats_chance)
"""Checks of whole runs, whose shapes and types the other checks see to."""


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method_name", list(METHODS))
@pytest.mark.parametrize(
    "check", [one for one in ALL_CHECKS if one not in LONG], ids=lambda check: check.__name__
)
def test_conformance(check: Check, method_name: str) -> None:
    check(method_name)


@pytest.mark.long
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method_name", list(METHODS))
@pytest.mark.parametrize("check", LONG, ids=lambda check: check.__name__)
def test_conformance_of_whole_runs(check: Check, method_name: str) -> None:
    check(method_name)


@pytest.mark.parametrize("head_name", [*HEADS, *WITH_OPTIONS])
@pytest.mark.parametrize("check", HEAD_CHECKS, ids=lambda check: check.__name__)
def test_conformance_of_heads(check: Check, head_name: str) -> None:
    check(head_name)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.testing.trial.KERNEL", "products")


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(("check", "method_name"), BY_PRODUCTS)
def test_conformance_where_attention_is_two_products(check: Check, method_name: str) -> None:
    check(method_name)


@pytest.mark.slow
@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("method_name", list(METHODS))
@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__)
def test_all_of_it_where_attention_is_two_products(check: Check, method_name: str) -> None:
    check(method_name)
