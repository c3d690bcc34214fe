"""L2P, DualPrompt and CODA-Prompt beside slow literal forms of what they choose and add."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.engine.model import Model
from perdure.methods import Method
from perdure.methods.coda_prompt import CodaPrompt, _orthonormal, component_weights
from perdure.methods.matching import choose, cosine, share
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pixels


def drawn(*size: int, name: str = "x") -> Tensor:
    return torch.randn(*size, generator=generator(0, name))


def learned(name: str, **options: Any) -> Model:
    return make_trial(name, **options).run().model


def before(method: Method, query: Tensor) -> Any:
    return method.additions(query, None)


def test_choice_of_an_image_is_its_own() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
    assert choose(similarity, 2, "image").tolist() == [[1, 2], [0, 2]]
    assert choose(similarity, 1, "image").tolist() == [[1], [0]]


def test_batch_takes_what_most_of_it_chose() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    assert choose(similarity, 1, "batch").tolist() == [[1], [1], [1]]


def test_shares_of_a_choice_sum_to_one() -> None:
    assert share(torch.tensor([[1, 2], [0, 2]]), 4).tolist() == [[0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0]]


def test_voting_breaks_batch_invariance_and_the_default_does_not() -> None:
    for selection, same in (("image", True), ("batch", False)):
        trial = make_trial("l2p", selection=selection, top_k=1)
        model = trial.run().model
        pixels = evaluation_pixels(trial)
        together = model.logits(pixels)["linear"]
        alone = torch.cat([model.logits(pixels[i : i + 1])["linear"] for i in range(len(pixels))])
        assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4) is same


def test_l2p_adds_the_prompts_of_the_closest_keys() -> None:
    method = learned("l2p", pool=5, top_k=2, prompt_length=3).method
    query = drawn(4, method.spec.dim)
    added = before(method, query).input
    keys, prompts = (
        method.get_parameter(name).detach() for name in ("keys", "prompts.matrices.input")
    )
    pull = 0.0
    for image, row in enumerate(query):
        close = [float(F.cosine_similarity(row, key, dim=0)) for key in keys]
        best = sorted(range(5), key=lambda i: -close[i])[:2]
        assert torch.equal(added[image], torch.cat([prompts[i] for i in best]))
        pull += 0.5 * sum(1 - close[i] for i in best) / 4
    found = before(method, query).penalties["key_pull"]
    assert float(found.detach()) == pytest.approx(pull, rel=1e-4)


def test_a_run_without_test_images_has_no_selection_to_describe() -> None:
    trial = make_trial("l2p")
    empty = tuple(
        dataclasses.replace(
            data,
            test=dataclasses.replace(
                data.test, indices=data.test.indices[:0], labels=data.test.labels[:0]
            ),
        )
        for data in trial.stream.tasks
    )
    stream = dataclasses.replace(trial.stream, tasks=empty)
    outcome = dataclasses.replace(trial, stream=stream).run()
    assert outcome.selection == {}
    assert trial.run().selection["selection_share_in_use"] > 0


def test_dualprompt_trains_its_own_expert_and_picks_the_closest_key() -> None:
    model = learned("dualprompt", sizes=(2, 2, 2))
    method, tasks = model.method, model.tasks
    keys = torch.stack([method.get_parameter(f"keys.{i}") for i in range(3)])
    query = torch.cat([keys[2:], keys[:1], keys[1:2]])
    found = before(method, query)
    for image, expert in enumerate((2, 0, 1)):
        weights = method.get_parameter(f"experts.{expert}")
        assert torch.equal(found.prefix[2][0][image], weights[0, 0])
        assert torch.equal(found.prefix[4][1][image], weights[2, 1])
    training = method.additions(query, tasks[1])
    assert torch.equal(training.prefix[3][0][0], method.get_parameter("experts.1")[1, 0])
    pull = float((1 - cosine(query, keys)[:, 1]).mean().detach())
    assert float(training.penalties["key_pull"].detach()) == pytest.approx(pull, rel=1e-5)


@pytest.mark.parametrize("name", ["dualprompt", "coda_prompt"])
def test_what_earlier_tasks_own_is_frozen(name: str) -> None:
    one, two = learned(name, sizes=(2,)).method, learned(name, sizes=(2, 2)).method
    if name == "dualprompt":
        assert torch.equal(one.get_parameter("experts.0"), two.get_parameter("experts.0"))
        assert torch.equal(one.get_parameter("keys.0"), two.get_parameter("keys.0"))
        assert not torch.equal(one.get_parameter("general.0"), two.get_parameter("general.0"))
        return
    for kind in ("prompts", "keys", "attention"):
        assert torch.equal(one.get_parameter(f"new.{kind}_0"), two.get_buffer(f"old_{kind}_0"))


def test_component_weights_equal_their_literal_form() -> None:
    query, attention, keys = drawn(3, 8), drawn(5, 8, name="a"), drawn(5, 8, name="k")
    found = component_weights(query, attention, keys)
    for image in range(3):
        for one in range(5):
            literal = F.cosine_similarity(query[image] * attention[one], keys[one], dim=0)
            torch.testing.assert_close(found[image, one], literal)


def test_coda_prefix_is_the_weighted_sum_of_all_components() -> None:
    method = learned("coda_prompt", components=3, prompt_length=4, sizes=(2, 2)).method
    assert isinstance(method, CodaPrompt)
    query = drawn(2, method.spec.dim)
    keys, values = before(method, query).prefix[1]
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
    model = learned("coda_prompt", sizes=(2, 2), components=2)
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
