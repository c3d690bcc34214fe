"""DualPrompt beside a slow literal form of what it chooses and adds."""

from __future__ import annotations

import pytest
import torch

from perdure.methods.matching import cosine
from perdure.testing import make_trial


@pytest.mark.long
def test_trains_its_own_expert_and_picks_the_closest_key() -> None:
    model = make_trial("dualprompt", sizes=(2, 2, 2)).run().model
    method, tasks = model.method, model.tasks
    keys = torch.stack([method.get_parameter(f"keys.{i}") for i in range(3)])
    query = torch.cat([keys[2:], keys[:1], keys[1:2]])
    found = method.additions(query, None)
    for image, expert in enumerate((2, 0, 1)):
        weights = method.get_parameter(f"experts.{expert}")
        assert torch.equal(found.prefix[2][0][image], weights[0, 0])
        assert torch.equal(found.prefix[4][1][image], weights[2, 1])
    training = method.additions(query, tasks[1])
    assert torch.equal(training.prefix[3][0][0], method.get_parameter("experts.1")[1, 0])
    pull = float((1 - cosine(query, keys)[:, 1]).mean().detach())
    assert float(training.penalties["key_pull"].detach()) == pytest.approx(pull, rel=1e-5)


@pytest.mark.long
def test_experts_and_keys_of_earlier_tasks_are_frozen() -> None:
    one, two = (make_trial("dualprompt", sizes=n * (2,)).run().model.method for n in (1, 2))
    assert torch.equal(one.get_parameter("experts.0"), two.get_parameter("experts.0"))
    assert torch.equal(one.get_parameter("keys.0"), two.get_parameter("keys.0"))
    assert not torch.equal(one.get_parameter("general.0"), two.get_parameter("general.0"))


def test_without_general_prefixes_experts_alone_are_added() -> None:
    model = make_trial("dualprompt", sizes=(2,), general_blocks=[], expert_blocks=[3]).run().model
    assert model.method.first_block == 3
