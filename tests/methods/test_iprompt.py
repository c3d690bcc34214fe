"""I-Prompt beside slow literal forms of its matching and its readout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from perdure.engine.model import Model
from perdure.errors import BackboneError
from perdure.methods.iprompt import MOST_TOKENS, IPrompt, TokenKeys
from perdure.randomness import generator
from perdure.testing import make_trial
from perdure.testing.trial import evaluation_pixels
from perdure.types import BlockView, Features, Task


def method(**options: Any) -> IPrompt:
    """An I-Prompt with drawn prompts, as after some task."""
    trial = make_trial("iprompt", **{"pool": 6, **options})
    made = Model(trial.backbone, trial.config).method
    assert isinstance(made, IPrompt)
    for block in made.blocks:
        size = made.residual[str(block)].shape
        made.residual[str(block)].data = torch.randn(size, generator=generator(0, f"r{block}"))
        made.get_buffer(f"merged_{block}").copy_(torch.randn(size, generator=generator(1, "m")))
    return made


def drawn(made: IPrompt, name: str) -> Tensor:
    tokens = made.spec.prefix_tokens + made.spec.patches
    return torch.randn(3, tokens, made.spec.dim, generator=generator(0, name))


def literal_delta(made: IPrompt, block: int, keys: Tensor) -> Tensor:
    """Token by token and prompt by prompt."""
    config = made.config
    prompts = made.get_buffer(f"merged_{block}") + made.residual[str(block)].detach()
    delta = torch.zeros_like(keys)
    for image in range(len(keys)):
        for token in range(keys.shape[1])[made.rows[block]]:
            similarity = torch.stack(
                [
                    F.cosine_similarity(keys[image, token], key, dim=0)
                    for key in made.keys[str(block)].detach()
                ]
            )
            if config.selection == "soft":
                weights = torch.exp(similarity / config.softness)
                pairs = [(i, float(w / weights.sum())) for i, w in enumerate(weights)]
            else:
                count = 1 if config.selection == "top1" else config.top_k
                best = sorted(range(config.pool), key=lambda i: -float(similarity[i]))[:count]
                pairs = [(i, 1 / count) for i in best]
            for i, weight in pairs:
                scale = similarity[i] if config.scale_by_similarity else 1.0
                delta[image, token] += weight * scale * prompts[i]
    return delta


@pytest.mark.parametrize("target", ["patches", "cls"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("selection", ["top1", "topk", "soft"])
def test_matching_equals_its_literal_form(selection: str, scaled: bool, target: str) -> None:
    made = method(selection=selection, scale_by_similarity=scaled, target=target, top_k=3)
    keys = drawn(made, "keys")
    block = made.blocks[0]
    residual = made.additions(None, None).residual[block]
    delta, _, records = residual.fn(drawn(made, "tokens"), keys)
    torch.testing.assert_close(delta, literal_delta(made, block, keys), rtol=1e-4, atol=1e-4)
    assert torch.allclose(records[f"selection.{block}"].sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("readout", ["cls", "tokens", "cls+tokens"])
@pytest.mark.parametrize("weights", ["attention", "similarity", "uniform"])
def test_readout_equals_its_literal_form(readout: str, weights: str) -> None:
    made = method(readout=readout, token_weights=weights)
    tokens = drawn(made, "tokens")[:, made.rows[made.blocks[0]]]
    cls, attention = drawn(made, "cls")[:, 0], torch.rand(tokens.shape[:2])
    similar = {f"similarity.{block}": torch.rand(tokens.shape[:2]) for block in made.blocks}
    given = Features(cls=cls, tokens=tokens, cls_attention=attention, records=similar)
    by = {
        "attention": attention,
        "similarity": sum(similar.values(), torch.zeros(())) / len(similar),
        "uniform": torch.ones(tokens.shape[:2]),
    }[weights]
    for image, found in enumerate(made.readout(given)):
        total = torch.zeros(made.spec.dim)
        for token, weight in zip(tokens[image], by[image] / by[image].sum(), strict=True):
            total += weight * token
        expected = {"cls": cls[image], "tokens": total, "cls+tokens": cls[image] + total}
        torch.testing.assert_close(found, expected[readout], rtol=1e-4, atol=1e-4)


def test_default_blocks_are_the_middle_third() -> None:
    trial = make_trial("iprompt")
    made = Model(trial.backbone, trial.config).method
    assert isinstance(made, IPrompt)
    assert made.blocks == (2, 3)
    assert made.first_block == 2


def test_keys_start_at_the_centres_of_token_keys() -> None:
    """Every key is a unit vector and is some token's closest; random ones need not be."""
    trial = make_trial("iprompt", pool=4)
    stage = next(iter(_stages(trial)))
    model = trial.start(stage).model
    again = trial.start(stage).model
    made = model.method
    assert isinstance(made, IPrompt)
    for name, keys in made.keys.items():
        torch.testing.assert_close(keys.norm(dim=-1), torch.ones(4))
        assert torch.equal(keys, again.method.get_parameter(f"keys.{name}"))
    _, features = model.forward(evaluation_pixels(trial))
    for block in made.blocks:
        assert int((features.records[f"selection.{block}"].sum(0) > 0).sum()) >= 3


def test_pool_larger_than_the_tokens_keeps_its_other_keys() -> None:
    trial = make_trial("iprompt", pool=300, target="cls", epochs=1)
    made = trial.run().model.method
    assert made.get_parameter("keys.2").shape[0] == 300


@pytest.mark.parametrize(("keys", "moved"), [("frozen", False), ("residual", True)])
def test_keys_after_the_first_task(keys: str, moved: bool) -> None:
    one = make_trial("iprompt", keys=keys, sizes=(2,)).run().model.method
    two = make_trial("iprompt", keys=keys, sizes=(2, 2)).run().model.method
    assert torch.equal(one.get_parameter("keys.2"), two.get_parameter("keys.2")) is not moved
    assert not torch.equal(one.get_buffer("merged_2"), two.get_buffer("merged_2"))
    assert not two.get_parameter("residual.2").any()


def test_one_thread_finds_the_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads and more add up in the order they end in, and no run would be like another."""
    threads: list[int] = []

    class Counted(KMeans):
        def fit(self, *rows: Any) -> KMeans:
            threads.extend(
                pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"
            )
            return super().fit(*rows)

    monkeypatch.setattr("perdure.methods.iprompt.KMeans", Counted)
    with threadpool_limits(3, user_api="openmp"):
        make_trial("iprompt", sizes=(2,)).run()
    assert threads
    assert set(threads) == {1}


def test_random_keys_need_no_survey_and_train_without_pull() -> None:
    trial = make_trial("iprompt", key_init="random", key_pull=0.0, scale_by_similarity=False)
    stage = next(iter(_stages(trial)))
    model = trial.start(stage).model
    names = [id(p) for group in model.method.param_groups(0.1) for p in group["params"]]
    assert not set(names) & {id(p) for p in model.method.get_submodule("keys").parameters()}


def test_pool_outside_the_backbone_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"prompt_blocks=\[9\]"):
        make_trial("iprompt", prompt_blocks=[9]).run()


def _stages(trial: Any) -> Any:
    from perdure.engine.run import plan

    return plan(trial.stream, trial.config)


@pytest.mark.parametrize(
    "choice",
    [
        {"selection": "topk", "top_k": 3},
        {"selection": "soft"},
        {"scale_by_similarity": False},
        {"where": "mlp"},
        {"target": "cls"},
        {"target": "cls", "readout": "cls"},
        {"key_init": "random"},
        {"key_pull": 0.0},
        {"keys": "residual"},
        {"readout": "tokens"},
        {"token_weights": "similarity"},
        {"token_weights": "uniform"},
    ],
    ids=str,
)
def test_every_choice_learns_two_tasks(choice: dict[str, Any]) -> None:
    outcome = make_trial("iprompt", pool=6, **choice).run()
    prompts = outcome.model.method.get_buffer("merged_2")
    assert float(prompts.norm()) > 0
    assert outcome.selection["selection_share_in_use"] > 0


def test_a_pool_grows_and_its_older_entries_are_frozen() -> None:
    """A new entry begins as the nearest older one and learns; state is of the limit from the start."""
    trial = make_trial("iprompt", sizes=(2, 2, 2), pool=4, pool_growth=3, pool_limit=9)
    model, states = None, []
    for stage in _stages(trial):
        training = trial.start(stage, model)
        model = training.model
        started = {n: v.clone() for n, v in model.method.state_dict().items()}
        training.train()
        training.finish()
        states.append((started, {n: v.clone() for n, v in model.method.state_dict().items()}))
    for task, (old, young) in enumerate([((0, 0), (0, 4)), ((0, 4), (4, 7)), ((0, 7), (7, 9))]):
        started, ended = states[task]
        for name in ("merged_2", "keys.2"):
            assert ended[name].shape[0] == 9
            assert torch.equal(started[name][slice(*old)], ended[name][slice(*old)])
        change = ended["merged_2"] - started["merged_2"]
        assert float(change[slice(*young)].norm()) > 0
        assert not change[young[1] :].any()
        if task:
            older = F.normalize(started["keys.2"][slice(*old)], dim=-1)
            for entry in range(*young):
                nearest = int((older @ started["keys.2"][entry]).argmax())
                assert torch.equal(started["merged_2"][entry], started["merged_2"][nearest])


@pytest.mark.long
def test_a_merged_pool_that_grows_keeps_its_new_keys() -> None:
    options = {"pool": 4, "pool_growth": 3, "pool_limit": 9}
    plain, merged = (
        make_trial("iprompt", merge=merge, **options).run().model.method
        for merge in ("none", "mean")
    )
    keys = merged.get_parameter("keys.2")[4:7]
    assert torch.equal(keys, plain.get_parameter("keys.2")[4:7])


def test_use_damps_the_entries_that_old_tokens_chose() -> None:
    """The update of an entry is divided by 1 + c u/ū, u the weight that old tokens gave it."""
    trial = make_trial("iprompt", protect="use", protect_strength=3.0, pool=6)
    stage = next(iter(_stages(trial)))
    training = trial.start(stage)
    training.train()
    made = training.model.method
    assert isinstance(made, IPrompt)
    delta = torch.randn(6, made.spec.dim)
    assert torch.equal(made.project("residual.2", delta), delta)
    training.finish()
    use = made.get_buffer("guard.use_2")
    assert made.state_dict()["use_2"] is not None
    assert int((use > 0).sum()) >= 3
    expected = delta / (1 + 3.0 * use / use.mean())[:, None]
    torch.testing.assert_close(made.project("residual.2", delta), expected)
    assert torch.equal(made.project("keys.2", delta), delta)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_tokens_that_are_clustered_do_not_depend_on_batches(size: int) -> None:
    """Every so many tokens of all, at most `MOST_TOKENS`, whatever the batches are."""
    images, tokens, dim = 7, 1500, 4
    keys = torch.randn(images, 1, tokens + 1, dim, generator=generator(0, "tokens"))
    seen = TokenKeys({0: slice(1, None)})
    for place in torch.arange(images).split(size):
        seen.start_batch(place, images, place)
        nothing = torch.zeros(len(place), tokens + 1, dim)
        seen.block(0, BlockView(nothing, nothing, None, keys[place], None))
    literal = F.normalize(keys[:, 0, 1:].reshape(-1, dim)[::2], dim=-1)
    torch.testing.assert_close(seen.keys(0), literal)
    assert len(literal) <= MOST_TOKENS


def test_keys_learn_in_the_first_task_that_trains() -> None:
    made = method()
    learn = []
    for index, classes in enumerate([(0,), (1, 2), (3, 4)]):
        made.start_task(Task(index, classes, tuple(map(str, classes)), classes[-1] + 1))
        learn.append(made._learns_keys)
    assert learn == [True, True, False]
