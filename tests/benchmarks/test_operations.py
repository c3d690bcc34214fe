"""Predicting costs the plain backbone and its prompts, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from operations import Operations, inference_operations, single_pass_methods, table

from perdure.engine.model import Model
from perdure.methods import METHODS
from perdure.testing.trial import make_trial


def operations(method: str, **options: object) -> Operations:
    trial = make_trial(method, **options)  # type: ignore[arg-type]
    return inference_operations(Model(trial.backbone, trial.config))


@pytest.mark.long
def test_single_pass_methods_cost_the_plain_backbone_and_their_prompts(
    record_property: Callable[[str, object], None],
) -> None:
    """The table is in the report: --junit-xml=FILE."""
    found = [operations(method) for method in single_pass_methods()]
    record_property("operations", table(found))
    over = [one.method for one in found if one.method_total > one.plain + one.prompts]
    assert not over, f"{over} cost more than they may:\n{table(found)}"
    # Nothing that belongs to a method is left out of the count, either.
    assert all(one.ratio > 0.999 for one in found), table(found)


def test_none_is_left_out() -> None:
    twice = {"l2p", "dualprompt", "coda_prompt", "l2p_nsp2", "l2p_pgp"}
    assert set(single_pass_methods()) == set(METHODS) - twice
    guided = {name for name in METHODS if name.startswith("clip_")}
    assert set(single_pass_methods(projection=False)) == set(METHODS) - twice - guided


def test_a_second_pass_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    once = operations("nsp2")
    forward = Model.forward

    def twice(self: Model, *args: object, **kwargs: object) -> object:
        forward(self, *args, **kwargs)  # type: ignore[arg-type]
        return forward(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "forward", twice)
    again = operations("nsp2")
    assert again.method_total == 2 * once.method_total > again.plain + again.prompts


def test_prompts_of_the_formula_are_those_that_are_there() -> None:
    """64 numbers wide, 4 patches and a class token, 6 blocks; 4 prompts in each."""
    projected, attended = 2 * 4 * 64 * 128, 2 * 2 * 4 * 64
    assert operations("nsp2").prompts == 6 * projected + (5 * 5 + 1) * attended
    assert operations("lda").prompts == 0
    assert operations("lda").ratio == 1
    longer = operations("finetune", prompt_length=8)
    assert longer.prompts == 2 * operations("finetune").prompts
    matched = 2 * 2 * 4 * 20 * 64
    assert operations("iprompt", readout="cls").prompts == 2 * matched
    assert operations("iprompt").prompts == 2 * matched + 2 * 4 * 64


def test_table_shows_millions() -> None:
    shown = table([Operations("nsp2", 2_000_000, 1_000_000, 3_000_000)])
    assert shown.splitlines()[2] == "| `nsp2` | 2.000 | 1.000 | 3.000 | 3.000 | 1.0000 |"
