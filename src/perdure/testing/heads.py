"""Checks that every head must pass, on drawn features; ``check_head(name)`` runs them on yours."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from perdure.heads import HEADS, Head, HeadConfig, TrainedHead
from perdure.heads.choice import HeadChoice, choose_head
from perdure.keys import keys_of
from perdure.numerics.feature_drift import FeatureDrift
from perdure.randomness import generator
from perdure.testing.drawn import DIM, DrawnTask, FeatureSurvey, drawn_tasks
from perdure.testing.learning import hidden_bytes, same_bits
from perdure.testing.trial import Check, contained, run_all
from perdure.types import BackboneSpec, Task

RTOL = 1e-5
"""Of the norm of logits; float32 sums depend on the shape of a batch."""
EMBEDDING = 8
STEPS, LR = 60, 0.05
DEFAULTS = HeadConfig(class_embeddings="mean", refine_epochs=3)

head_check = functools.partial(contained, look_up=choose_head)


@head_check
@torch.no_grad()
def check_grows_with_classes(head_name: str) -> None:
    """After every task, the head scores all classes so far in order of arrival, old ones still.

    Among a task's own classes the right one scores highest for most images, which lie far apart
    here. A head in closed form is also given a task of one class. Shapes change in ``start_task``
    alone, which is what is replayed when a model is loaded, but for those in ``sized_by_images``.
    Tensors and arrays held outside the state may not grow at all.
    """
    head, tasks = _new(head_name), drawn_tasks(head_name)
    hidden: list[int] = []
    for drawn in tasks:
        head.start_task(drawn.task)
        shapes = _shapes(head)
        _learn(head, drawn)
        changed = {name for name, _ in _shapes(head).items() ^ shapes.items()}
        late = sorted(name for name in changed if not _matches(name, head.sized_by_images))
        assert not late, (
            f"'{head_name}' changes the shape of {', '.join(late)} after start_task, which alone is "
            "replayed when a model is loaded. What depends on the number of images, name in "
            "sized_by_images."
        )
        for seen in tasks[: drawn.task.index + 1]:
            _assert_scores(head_name, head, seen, drawn.task)
        hidden.append(hidden_bytes(head))
    assert hidden[-1] <= hidden[0], (
        f"'{head_name}' holds tensors outside its state that grow with the tasks: {hidden} bytes "
        "after each. They would be lost when the model is saved; if they come from old images, they "
        "are a memory of them."
    )


def _assert_scores(head_name: str, head: Head, seen: DrawnTask, now: Task) -> None:
    features, labels = seen.test
    logits = head.logits(features)
    assert logits.shape == (len(features), now.seen), (
        f"'{head_name}' gives scores of shape {tuple(logits.shape)} for {len(features)} images of "
        f"{now.seen} classes."
    )
    assert bool(logits.isfinite().all()), f"'{head_name}' gives scores that are not finite."
    first, *_ = classes = seen.task.classes
    right = float(
        (logits[:, first : first + len(classes)].argmax(1) + first == labels).float().mean()
    )
    least = (1 + 1 / len(classes)) / 2
    assert right >= least, (
        f"'{head_name}' after task {now.index}: of the classes of task {seen.task.index} the right "
        f"one scores highest for {right:.0%} of its images, expected are {least:.0%} at least. "
        "Columns are classes in order of arrival."
    )


@head_check
@torch.no_grad()
def check_alone_in_batch(head_name: str) -> None:
    """An image is scored alone as in any batch; scoring changes no state and draws nothing."""
    tasks = drawn_tasks(head_name)
    head, features = _fitted(head_name, tasks), _test_features(tasks)
    state, random = _state(head), torch.get_rng_state()
    together, turned = head.logits(features), head.logits(features.flip(0)).flip(0)
    for index, image in enumerate(features):
        alone = head.logits(image[None])[0]
        for where, scores in (("in a batch", together[index]), ("turned round", turned[index])):
            assert _close(scores, alone), (
                f"'{head_name}' scores an image differently alone and {where}: the logits are "
                f"{float((scores - alone).norm()):.1e} apart at norm {float(alone.norm()):.1e}."
            )
    assert same_bits(head.logits(features), together), (
        f"'{head_name}' scores the same images differently the second time."
    )
    changed = _changed(_state(head), state)
    assert not changed, f"'{head_name}' changes {', '.join(changed)} by scoring."
    assert torch.equal(random, torch.get_rng_state()), (
        f"'{head_name}' draws from torch's global generator in order to score."
    )


@head_check
@torch.no_grad()
def check_saved_and_loaded(head_name: str) -> None:
    """A head that comes back from its state scores the same bits and learns on to the same bits.

    The former holds without the tensors that ``learning_only`` names, too.
    """
    *old, last = tasks = drawn_tasks(head_name)
    head, features = _fitted(head_name, old), _test_features(tasks)
    state = _state(head)
    loaded = _loaded(head_name, old, state)
    assert same_bits(loaded.logits(features), head.logits(features)), (
        f"'{head_name}' scores differently after being saved and loaded. Whatever its scores depend "
        "on must be a parameter or a persistent buffer."
    )
    left_out = [k for k in state if _matches(k, head.learning_only)]
    try:
        reduced = _loaded(head_name, old, {**state, **{k: state[k].new_empty(0) for k in left_out}})
        same = same_bits(reduced.logits(features), head.logits(features))
    except (RuntimeError, TypeError, ValueError, IndexError):  # an emptied tensor
        same = False
    assert same, (
        f"'{head_name}' scores differently without {', '.join(left_out)}: its scores must not read "
        "what learning_only names."
    )
    for one in (head, loaded):
        _teach(one, last)
    assert same_bits(loaded.logits(features), head.logits(features)), (
        f"'{head_name}' learns the next task differently after being saved and loaded."
    )


@head_check
@torch.no_grad()
def check_more_images(head_name: str) -> None:
    """More images of known classes, taken in later, count as if they had been there at once.

    What the head chooses by its data is held fixed: its options are those of ``Head.fixed``. A head
    that takes none in gives the reason and is not asked.
    """
    tasks = drawn_tasks(head_name)
    options = HEADS[choose_head(head_name).kind].fixed
    at_once = _fitted(head_name, tasks, **options)
    halves = [dataclasses.replace(drawn, train=drawn.half(second=False)) for drawn in tasks]
    later = _fitted(head_name, halves, **options)
    if later.refuses(range(tasks[-1].task.seen)):
        return
    surveys = [FeatureSurvey(drawn.half(second=True)) for drawn in tasks]
    rest = [survey.features(mirrored=later.mirrored) for survey in surveys]
    later.take_in(torch.cat([f for f, _ in rest]), torch.cat([labels for _, labels in rest]))
    features = _test_features(tasks)
    ours, theirs = later.logits(features), at_once.logits(features)
    assert _close(ours, theirs), (
        f"'{head_name}': with half of the images taken in later, the logits are "
        f"{float((ours - theirs).norm()):.1e} away from those with all at once, at norm "
        f"{float(theirs.norm()):.1e}. Where more images cannot be merged, say so in `refuses`."
    )


@head_check
@torch.no_grad()
def check_forgets(head_name: str) -> None:
    """Of a class that is forgotten, nothing stays in tensors that no `Trace` names.

    Two heads learn the same but for the images of one class, of which the other has other ones and
    more. After both forgot it, tensors that differ must be named. Among other classes every
    image is told as before.
    """
    tasks = drawn_tasks(head_name)
    for label in (0, tasks[-1].task.classes[-1]):
        head, twin = (
            _fitted(head_name, drawn_tasks(head_name, redrawn=other)) for other in (None, label)
        )
        features = _test_features(tasks)
        rest = [column for column in range(tasks[-1].task.seen) if column != label]
        before = head.logits(features)[:, rest].argmax(1)
        traces = head.forget(label)
        twin.forget(label)
        named = {tensor for trace in traces for tensor in trace.tensors}
        state = _state(head)
        unknown = sorted(named - state.keys())
        assert not unknown, f"'{head_name}' names traces in {', '.join(unknown)}, which it lacks."
        carrying = sorted(set(_changed(state, _state(twin))) - named)
        assert not carrying, (
            f"'{head_name}' has forgotten class {label}, but {', '.join(carrying)} still "
            f"depend{'s' if len(carrying) == 1 else ''} on its images. Overwrite that, or name it in "
            "a Trace."
        )
        assert torch.equal(head.logits(features)[:, rest].argmax(1), before), (
            f"'{head_name}' tells other classes apart differently once class {label} is forgotten."
        )


@head_check
@torch.no_grad()
def check_follows(head_name: str) -> None:
    """Statistics that follow an affine drift are those that moved images would have given.

    A head without the option ``drift`` is not asked, nor one of random features, which cannot
    follow, nor one that is trained, on other features.
    What the head chooses by its data is held fixed, as in `check_more_images`.
    """
    named = choose_head(head_name)
    kind = HEADS[named.kind]
    lifted = getattr(named.options(DEFAULTS), "lift", "none") != "none"
    if not kind.closed_form or lifted or "drift" not in keys_of(kind.Config):
        return
    *old, last = tasks = [_moved(drawn) for drawn in drawn_tasks(head_name)]
    options = {**kind.fixed, "drift": "linear"}
    at_once = _fitted(head_name, tasks, **options)
    head = _fitted(head_name, drawn_tasks(head_name)[:-1], **options)
    head.start_task(last.task)
    pairs = torch.randn(4 * DIM, DIM, generator=generator(0, "pairs"))
    head.follow(FeatureDrift(pairs, _drifted(pairs), known=old[-1].task.seen))
    _learn(head, last)
    features = _test_features(tasks)
    ours, theirs = head.logits(features), at_once.logits(features)
    assert _close(ours, theirs), (
        f"'{head_name}' does not follow an affine drift: its logits are "
        f"{float((ours - theirs).norm()):.1e} away from those of a head that has learned moved images, "
        f"at norm {float(theirs.norm()):.1e}. All that `follow` is to move: what is kept of features."
    )


def _drifted(features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """An affine drift, small beside the distance of classes."""
    turn = torch.randn(DIM, DIM, generator=generator(0, "turn")) / (4 * DIM**0.5)
    moved: Tensor = features + 0.5 + features @ turn
    return moved


def _moved(drawn: DrawnTask) -> DrawnTask:
    both_views = FeatureSurvey(drawn.train).features(mirrored=True)
    train, test = ((_drifted(features), labels) for features, labels in (both_views, drawn.test))
    return dataclasses.replace(drawn, train=train, test=test)


HEAD_CHECKS: tuple[Check, ...] = (
    check_grows_with_classes,
    check_alone_in_batch,
    check_saved_and_loaded,
    check_more_images,
    check_forgets,
    check_follows,
)
"""Each takes a head by name and raises an AssertionError that says what is wrong."""


def check_head(head_name: str) -> None:
    """Run every check on a registered head, and report all that fail.

    Args:
        head_name: the name under which the head is registered, with options of its own or without.

    Raises:
        UnknownNameError: no such head.
        AssertionError: one or more checks fail; the text names them and says why.

    Examples:
        >>> check_head("gaussian(shrinkage=0.5)")
    """
    choose_head(head_name)
    run_all(HEAD_CHECKS, head_name)


def _new(head_name: str, **options: Any) -> Head:
    projection = torch.randn(EMBEDDING, DIM, generator=generator(0, "projection")) / DIM**0.5
    spec = BackboneSpec("drawn", DIM, 1, 1, 1, True, 1, 1e-6, projection=(projection, None))
    named = choose_head(head_name)
    choice = HeadChoice(named.kind, tuple({**dict(named.own), **options}.items()))
    return HEADS[choice.kind](spec, choice.options(DEFAULTS), lambda name: generator(0, name))


def _fitted(head_name: str, tasks: list[DrawnTask], **options: Any) -> Head:
    head = _new(head_name, **options)
    for drawn in tasks:
        _teach(head, drawn)
    return head


def _teach(head: Head, drawn: DrawnTask) -> None:
    head.start_task(drawn.task)
    _learn(head, drawn)


def _learn(head: Head, drawn: DrawnTask) -> None:
    """All of a task but its start: as the engine does it, with full batches where it is trained."""
    survey = FeatureSurvey(drawn.train, drawn.test)
    head.prepare(drawn.task, survey)
    if isinstance(head, TrainedHead):
        _train(head, drawn)
    head.end_task(drawn.task, survey)


@torch.enable_grad()
def _train(head: TrainedHead, drawn: DrawnTask) -> None:
    optimiser = torch.optim.Adam(head.trained(drawn.task).parameters(), LR)
    features, labels = drawn.train
    for _ in range(STEPS):
        optimiser.zero_grad()
        logits = head.task_logits(features, drawn.task)
        F.cross_entropy(logits, labels - drawn.task.classes[0]).backward()
        optimiser.step()


def _loaded(head_name: str, tasks: list[DrawnTask], state: Mapping[str, Tensor]) -> Head:
    """A new head with a state that `_state` gave after these tasks."""
    head = _new(head_name)
    for drawn in tasks:
        head.start_task(drawn.task)
    for name, value in head.state_dict(keep_vars=True).items():
        if state[name].shape != value.shape and not _matches(name, head.sized_by_images):
            value.data = torch.empty_like(state[name])
    head.load_state_dict(dict(state), strict=True)
    return head


def _test_features(tasks: list[DrawnTask]) -> Float[Tensor, "n d"]:
    return torch.cat([drawn.test[0] for drawn in tasks])


def _state(head: Head) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in head.state_dict().items()}


def _shapes(head: Head) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in head.state_dict().items()}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _changed(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits on both sides."""
    names = sorted(ours.keys() | theirs.keys())
    return [
        name
        for name in names
        if name not in ours or name not in theirs or not same_bits(ours[name], theirs[name])
    ]


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).norm() <= RTOL * theirs.norm())
