"""Every registered method passes every check."""

from __future__ import annotations

import pytest

from perdure.methods import METHODS
from perdure.testing import ALL_CHECKS, Check


@pytest.mark.parametrize("method_name", list(METHODS))
@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, method_name: str) -> None:
    check(method_name)
