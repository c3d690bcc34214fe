"""Every registered method passes every check."""

from __future__ import annotations

import pytest

from perdure.methods import METHODS
from perdure.testing import ALL_CHECKS, Check
from perdure.testing.prediction import check_alone_in_batch
from perdure.testing.protection import check_projection

BY_PRODUCTS = [
    (check_projection, "nsp2"),
    *((check_alone_in_batch, name) for name in ("coda_prompt", "iprompt", "l2p", "nsp2")),
]
"""What is also checked by default with attention as two products and a softmax."""


@pytest.mark.parametrize("method_name", list(METHODS))
@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, method_name: str) -> None:
    check(method_name)


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
