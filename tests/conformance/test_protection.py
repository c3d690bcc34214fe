"""Methods under an optional protection, and a pool that grows, pass the checks that these touch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from perdure.methods import Method
from perdure.methods.coda_prompt import CodaPrompt
from perdure.methods.finetune import Finetune
from perdure.methods.iprompt import IPrompt
from perdure.testing import Check
from perdure.testing.checks import (
    check_gradients,
    check_images_touched,
    check_observers_merge,
    check_projection,
    check_resume,
    check_save_load,
    check_state_growth,
)
from tests.conformance.test_mutants import registered

pytestmark = pytest.mark.long

SENSITIVITY = {"protect": "sensitivity"}
CASES: list[tuple[type[Method], dict[str, Any]]] = [
    (CodaPrompt, SENSITIVITY),
    (IPrompt, {"pool": 4, "pool_growth": 2, "pool_limit": 7}),
]
MORE: list[tuple[type[Method], dict[str, Any]]] = [
    (Finetune, {**SENSITIVITY, "protect_keep": 0.5}),
    (IPrompt, {**SENSITIVITY, "protect_gram": "right"}),
    (IPrompt, {"protect": "use"}),
]
CHECKS = [check_gradients, check_images_touched, check_resume, check_save_load, check_state_growth]


def variant(base: type[Method], options: dict[str, Any], **traits: Any) -> type[Method]:
    """The method with these options for defaults."""
    changed = dataclasses.replace(base.traits, **traits)
    return type("Variant", (base,), {"traits": changed, "checked_with": options})


@pytest.mark.parametrize(
    ("base", "options"),
    [*CASES, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)],
    ids=str,
)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, base: type[Method], options: dict[str, Any]) -> None:
    with registered(variant(base, options)) as name:
        check(name)


def test_projection_protects_deep_prompts() -> None:
    options = {**SENSITIVITY, "protect_keep": 0.5}
    with registered(
        variant(Finetune, options, projects_updates=True, protects_features=True)
    ) as name:
        check_projection(name)


def test_use_of_entries_merges() -> None:
    with registered(variant(IPrompt, {"protect": "use"})) as name:
        check_observers_merge(name)
