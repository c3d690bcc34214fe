"""L2P beside a slow literal form of what it chooses and adds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from perdure.engine.run import plan
from perdure.methods.l2p import L2P
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pixels


def test_adds_the_prompts_of_the_closest_keys() -> None:
    method = make_trial("l2p", pool=5, top_k=2, prompt_length=3).run().model.method
    query = torch.randn(4, method.spec.dim, generator=generator(0, "x"))
    added = method.additions(query, None).input
    keys, prompts = (
        method.get_parameter(name).detach() for name in ("keys", "prompts.matrices.input")
    )
    pull = 0.0
    for image, row in enumerate(query):
        close = [float(F.cosine_similarity(row, key, dim=0)) for key in keys]
        best = sorted(range(5), key=lambda i: -close[i])[:2]
        assert torch.equal(added[image], torch.cat([prompts[i] for i in best]))
        pull += 0.5 * sum(1 - close[i] for i in best) / 4
    found = method.additions(query, None).penalties["key_pull"]
    assert float(found.detach()) == pytest.approx(pull, rel=1e-4)


def test_deep_prompts_are_those_of_the_chosen_entries_in_every_block() -> None:
    model = make_trial("l2p", prompt_blocks=[0, -1], pool=4, top_k=2, prompt_length=3).run().model
    method = model.method
    assert isinstance(method, L2P)
    query = torch.randn(3, 64, generator=generator(0, "query"))
    added = method.additions(query, None)
    assert added.input is None
    last = model.backbone.spec.blocks - 1
    assert set(added.tokens) == {0, last}
    for image, chosen in enumerate(added.records["chosen"].tolist()):
        for block in (0, last):
            matrix = method.prompts.matrices[str(block)]
            assert torch.equal(added.tokens[block][image], torch.cat([matrix[e] for e in chosen]))


@pytest.mark.long
def test_voting_breaks_batch_invariance_and_the_default_does_not() -> None:
    for vote, same in (("image", True), ("batch", False)):
        trial = make_trial("l2p", vote=vote, top_k=1)
        model = trial.run().model
        pixels = evaluation_pixels(trial)
        together = model.logits(pixels)["linear"]
        alone = torch.cat([model.logits(pixels[i : i + 1])["linear"] for i in range(len(pixels))])
        assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4) is same


def test_unchosen_prompts_stay_where_they_are() -> None:
    """Weight decay in the gradient would have moved them by full steps of Adam."""
    trial = make_trial("l2p", pool=40, top_k=1, weight_decay=0.1)
    stage = plan(trial.stream, trial.config)[0]
    before = trial.start(stage).model.method.get_parameter("prompts.matrices.input").detach()
    after = trial.run().model.method.get_parameter("prompts.matrices.input").detach()
    moved = (after != before).flatten(1).any(dim=1)
    assert 0 < int(moved.sum()) < 40


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
