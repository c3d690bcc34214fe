"""CODA-Prompt beside slow literal forms of its weighted sums and its penalty."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.engine.run import plan
from perdure.methods.coda_prompt import CodaPrompt, _orthonormal, component_weights
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pixels


def drawn(*size: int, name: str = "x") -> Tensor:
    return torch.randn(*size, generator=generator(0, name))


def test_component_weights_equal_their_literal_form() -> None:
    query, attention, keys = drawn(3, 8), drawn(5, 8, name="a"), drawn(5, 8, name="k")
    found = component_weights(query, attention, keys)
    for image in range(3):
        for one in range(5):
            literal = F.cosine_similarity(query[image] * attention[one], keys[one], dim=0)
            torch.testing.assert_close(found[image, one], literal)


def test_coda_prefix_is_the_weighted_sum_of_all_components() -> None:
    method = (
        make_trial("coda_prompt", components=3, prompt_length=4, sizes=(2, 2)).run().model.method
    )
    assert isinstance(method, CodaPrompt)
    query = drawn(2, method.spec.dim)
    keys, values = method.additions(query, None).prefix[1]
    parts = {
        k: torch.cat([method.get_buffer(f"old_{k}_1"), method.new[f"{k}_1"]]) for k in method.widths
    }
    assert len(parts["keys"]) == 6
    for image in range(2):
        total = torch.zeros(4 * method.spec.dim)
        for m in range(6):
            alpha = F.cosine_similarity(
                query[image] * parts["attention"][m], parts["keys"][m], dim=0
            )
            total += alpha * parts["prompts"][m]
        rows = total.view(4, -1)
        torch.testing.assert_close(keys[image], rows[:2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values[image], rows[2:], rtol=1e-4, atol=1e-5)


def test_new_components_are_orthogonal_to_old_ones() -> None:
    old = _orthonormal(torch.rand(3, 10, generator=generator(0, "o")), torch.zeros(0, 10))
    new = _orthonormal(torch.rand(4, 10, generator=generator(0, "n")), 5 * old)
    both = torch.cat([old, new])
    torch.testing.assert_close(both @ both.T, torch.eye(7), rtol=1e-5, atol=1e-5)


def test_components_beyond_the_dimension_are_unit_vectors() -> None:
    made = _orthonormal(torch.rand(5, 3, generator=generator(0, "n")), torch.zeros(0, 3))
    torch.testing.assert_close(made.norm(dim=1), torch.ones(5))


def test_orthogonality_penalty_is_of_all_components() -> None:
    model = make_trial("coda_prompt", components=2).run().model
    method = model.method
    assert isinstance(method, CodaPrompt)
    total = 0.0
    for block in method.blocks:
        for kind in method.widths:
            rows = torch.cat(
                [method.get_buffer(f"old_{kind}_{block}"), method.new[f"{kind}_{block}"]]
            )
            gram = rows @ rows.T - torch.eye(4)
            gram[:2, :2] = 0  # between old rows: constant
            total += float(gram.detach().square().mean())
    found = method.additions(drawn(2, method.spec.dim), model.tasks[-1]).penalties["orthogonality"]
    assert float(found.detach()) == pytest.approx(0.1 * total, rel=1e-4)


@pytest.mark.long
def test_components_of_earlier_tasks_are_frozen() -> None:
    one, two = (make_trial("coda_prompt", sizes=n * (2,)).run().model.method for n in (1, 2))
    for kind in ("prompts", "keys", "attention"):
        assert torch.equal(one.get_parameter(f"new.{kind}_0"), two.get_buffer(f"old_{kind}_0"))


def test_a_task_of_one_class_leaves_features_where_they_are() -> None:
    trial = make_trial("coda_prompt", sizes=(2, 1), heads=("linear", "gaussian"))
    pixels, readouts, model = evaluation_pixels(trial), [], None
    for stage in plan(trial.stream, trial.config):
        training = trial.start(stage, model)
        training.train()
        training.finish()
        model = training.model
        readouts.append(model.forward(pixels)[0])
    torch.testing.assert_close(*readouts, rtol=1e-4, atol=1e-5)
