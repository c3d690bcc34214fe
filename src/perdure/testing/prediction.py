"""Conformance checks of prediction: pure, alone as in any batch, without the task, after loading."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from perdure.backbones.additions import Additions
from perdure.errors import BackboneError
from perdure.learner import ContinualClassifier
from perdure.methods import METHODS, Method
from perdure.testing.learning import same_bits
from perdure.testing.trial import (
    Trial,
    contained,
    evaluation_pictures,
    evaluation_pixels,
    make_trial,
    own_options,
)
from perdure.types import Task

RTOL = 1e-5
"""Of the norm of an image's logits; float32 sums depend on the shape of a batch."""
ALONE = 6
"""Images that are predicted one by one."""


@contained
def check_prediction_pure(method_name: str) -> None:
    """Predicting twice gives the same bits, changes no bit of the state and draws nothing."""
    trial = make_trial(method_name)
    model = trial.run().model
    pixels = evaluation_pixels(trial)
    before = {key: value.clone() for key, value in model.state().items()}
    random = torch.get_rng_state()
    first = model.logits(pixels)
    model.logits(pixels.flip(0)[:ALONE])
    second = model.logits(pixels)
    for head, logits in first.items():
        assert same_bits(logits, second[head]), (
            f"'{method_name}' scores the same images differently the second time (head '{head}')."
        )
    after = model.state()
    changed = [key for key in before if not same_bits(before[key], after[key])]
    assert not changed, f"'{method_name}' changes {', '.join(changed)} by predicting."
    assert torch.equal(random, torch.get_rng_state()), (
        f"'{method_name}' draws from torch's global generator in order to predict."
    )


@contained
def check_alone_in_batch(method_name: str) -> None:
    """An image is scored alone as in any batch, and gets the same label unless two classes tie."""
    trial = make_trial(method_name)
    model = trial.run().model
    pixels = evaluation_pixels(trial)
    together, turned = model.logits(pixels), model.logits(pixels.flip(0))
    for image in range(0, len(pixels), len(pixels) // ALONE):
        alone = model.logits(pixels[image : image + 1])
        for head in together:
            among = {
                "in a batch": together[head][image],
                "turned round": turned[head].flip(0)[image],
            }
            for where, scores in among.items():
                _assert_same_scores(method_name, head, where, scores, alone[head][0])


def _assert_same_scores(
    method_name: str, head: str, where: str, scores: Float[Tensor, "c"], alone: Float[Tensor, "c"]
) -> None:
    norm = float(alone.norm())
    distance = float((scores - alone).norm())
    assert distance <= RTOL * norm, (
        f"'{method_name}' scores an image differently alone and {where} (head '{head}'): the "
        f"logits are {distance:.1e} apart at norm {norm:.1e}; allowed is {RTOL:.0e} of the norm."
    )
    best, runner_up = alone.topk(2).values.tolist()
    assert int(scores.argmax()) == int(alone.argmax()) or best - runner_up <= RTOL * norm, (
        f"'{method_name}' labels an image differently alone and {where} (head '{head}')."
    )


@contained
def check_first_block(method_name: str) -> None:
    """Images taken through the blocks before ``first_block`` beforehand are scored the same."""
    late: dict[str, Any] = {}
    if "prompt_blocks" in own_options(method_name):
        late["prompt_blocks"] = (-1,)
    trial = make_trial(method_name, **late)
    model = trial.run().model
    backbone, block = model.backbone, model.method.first_block
    assert 0 <= block < backbone.spec.blocks, f"'{method_name}' has first_block={block}."
    pixels = evaluation_pixels(trial)
    whole, _ = model.forward(pixels)
    try:
        rest, _ = model.forward(backbone.advance(backbone.normalise(pixels), block))
    except BackboneError as error:
        raise AssertionError(f"'{method_name}' has first_block={block}: {error}") from error
    assert torch.allclose(rest, whole, rtol=RTOL, atol=RTOL), (
        f"'{method_name}' reads something else of images that are at block {block} already: they "
        f"are {float((rest - whole).abs().max()):.1e} apart."
    )


@contained
def check_no_task_at_test(method_name: str) -> None:
    """``additions`` gets the task in training only: surveys and evaluation give None.

    A call without gradients is one at test time.
    """
    trial = make_trial(method_name)
    with _watched_additions(METHODS[method_name]) as calls:
        try:
            trial.run()
        except (AttributeError, TypeError, KeyError) as error:
            if calls and calls[-1] == (False, None):
                raise AssertionError(
                    f"'{method_name}' cannot predict without being told the task: "
                    f"{type(error).__name__}: {error}"
                ) from error
            raise
    at_test = [task for training, task in calls if not training]
    assert at_test, f"'{method_name}' was never asked for its additions at test time."
    told = [task.index for task in at_test if task is not None]
    assert not told, f"'{method_name}' was told the task at test time, {len(told)} times."
    blind = [task for training, task in calls if training and task is None]
    assert not blind, f"'{method_name}' was not told the task in training, {len(blind)} times."


@contextmanager
def _watched_additions(cls: type[Method]) -> Iterator[list[tuple[bool, Task | None]]]:
    """Note, for every call, whether it was made for training and which task it was given."""
    calls: list[tuple[bool, Task | None]] = []
    own = cls.__dict__.get("additions")
    original = cls.additions

    def additions(self: Method, query: Any, task: Task | None) -> Additions:
        calls.append((torch.is_grad_enabled(), task))
        return original(self, query, task)

    cls.additions = additions  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        if own is None:
            del cls.additions
        else:
            cls.additions = own  # type: ignore[method-assign]


@contained
def check_save_load(method_name: str) -> None:
    """A classifier that was saved and loaded scores every picture as before, bit for bit.

    So does one saved without what method and heads declare as read by learning alone.
    """
    trial = make_trial(method_name)
    classifier = ContinualClassifier.from_model(trial.run().model)
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(folder)
        loaded = ContinualClassifier.load(folder, backbone=trial.backbone)
        classifier.save(folder, inference_only=True)
        reduced = ContinualClassifier.load(folder, backbone=trial.backbone)
    assert loaded.model.label_names == classifier.model.label_names, (
        f"'{method_name}' came back with other classes."
    )
    _assert_same_predictions(
        method_name,
        trial,
        (classifier, loaded),
        "Whatever prediction depends on must be a parameter or a persistent buffer.",
    )
    state = classifier.model.state()
    lost = [k for k, v in loaded.model.state().items() if not same_bits(v, state[k])]
    assert not lost, f"'{method_name}': {', '.join(lost)} changed by being saved and loaded."
    _assert_same_predictions(
        method_name,
        trial,
        (classifier, reduced),
        f"It was saved for inference only: prediction must not read what learning_only names, "
        f"{', '.join(sorted(classifier.model.learning_only))}.",
    )


def _assert_same_predictions(
    method_name: str, trial: Trial, pair: tuple[ContinualClassifier, ContinualClassifier], why: str
) -> None:
    before, after = pair
    pictures = evaluation_pictures(trial)
    for head in trial.config.head_names:
        try:
            same = same_bits(after.logits(pictures, head), before.logits(pictures, head))
        except (RuntimeError, TypeError, ValueError, IndexError):  # an emptied tensor
            same = False
        assert same, (
            f"'{method_name}' scores differently after being saved and loaded (head '{head}'). {why}"
        )
