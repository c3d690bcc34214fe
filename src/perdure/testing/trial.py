"""Trial of a method: a random ViT, synthetic images, a few steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn

from perdure.backbones.attention import Kernel
from perdure.backbones.catalog import create_backbone
from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.config import Config, make_config
from perdure.engine.events import Sink, ignore
from perdure.engine.model import Model
from perdure.engine.run import Outcome, Run, Stage
from perdure.engine.training import Training
from perdure.errors import PerdureError
from perdure.heads import HEADS
from perdure.keys import keys_of
from perdure.methods import METHODS
from perdure.randomness import generator
from perdure.streams import (
    ImageSet,
    Stream,
    build_stream,
    build_transform,
    load_source,
)

BACKBONE = "test_vit"
"""Random weights of 371 k parameters, without LayerScale, which would mute prompts."""
SIDE = 32
PROJECTION = 16
"""Width of the random image projection, for methods that need one."""
TEST_IMAGES = 8
KERNEL: Kernel = "fused"
"""Attention kernel of every trial."""

Check = Callable[[str], None]
Watch = Callable[[ImageSet, str], ImageSet]


@dataclass(frozen=True)
class Trial:
    """Trial: a configuration with its backbone and stream.

    Attributes:
        config: names the method.
        backbone: frozen, random.
        stream: drawn images.
    """

    config: Config
    backbone: FrozenBackbone
    stream: Stream

    def run(self, folder: Path | None = None, sink: Sink = ignore) -> Outcome:
        """Go through the whole stream; with a folder, go on from the checkpoint found there."""
        return Run(self.config, self.stream, self.backbone, folder, sink)()

    def start(self, stage: Stage, model: Model | None = None) -> Training:
        """Start a stage as a run does, on the model of the stage before where it goes on from that."""
        if model is None or stage.fresh:
            model = Model(self.backbone, self.config)
        training = Training(model, stage.data)
        training.start()
        return training


def make_trial(
    method_name: str,
    sizes: tuple[int, ...] = (2, 2),
    images: int = 8,
    watch: Watch | None = None,
    **options: Any,
) -> Trial:
    """Set up a method on a random backbone and a drawn stream.

    The method's options are its defaults and what it is ``checked_with``.

    Args:
        method_name: a registered method.
        sizes: number of classes of each task.
        images: training images per class.
        watch: wraps the images of a split, ``"train"`` or ``"test"``, to see what is read.
        **options: keys of the run, its heads or its method.

    Raises:
        ConfigError: an option that the method does not have.
    """
    values: dict[str, Any] = {
        "method": method_name,
        "backbone": BACKBONE,
        "weights": "random",
        "img_size": SIDE,
        "precision": "fp32",
        "device": "cpu",
        "data": f"synthetic:{sum(sizes)}x{SIDE}",
        "images_per_class": images,
        "test_images_per_class": TEST_IMAGES,
        "tasks": sizes,
        "class_order": "sorted",
        "epochs": 1,
        "batch_size": 8,
        "lr": 0.03,
        "eval_batch_size": 16,
        "class_embeddings": "mean",
        "refine_epochs": 3,
    }
    config = make_config({**values, **METHODS.declared[method_name].checked_with, **options})
    projected = any(
        HEADS.declared[choice.kind].needs_projection for choice in config.built_heads.values()
    )
    return Trial(config, _backbone(projected), _stream(config, watch))


def own_options(method_name: str) -> frozenset[str]:
    """Names of the options that the method itself has."""
    return frozenset(keys_of(METHODS.declared[method_name].Config))


def evaluation_pixels(trial: Trial) -> UInt8[Tensor, "n 3 s s"]:
    """All test images of the stream, transformed as for evaluation, in order of their tasks."""
    test = build_transform(trial.config.training.transform, trial.backbone.img_size).test
    return torch.stack([test(picture) for picture in evaluation_pictures(trial)])


def evaluation_pictures(trial: Trial) -> list[Image.Image]:
    """All test images of the stream as a user would give them, in order of their tasks."""
    return [
        data.test.images.image(int(index))
        for data in trial.stream.tasks
        for index in data.test.indices
    ]


def asks_for_gradients(backbone: FrozenBackbone) -> bool:
    """Tell whether a method has made weights that it can reach ask for gradients."""
    spec = backbone.spec
    projection = [tensor for tensor in spec.projection or () if tensor is not None]
    reachable = (*spec.key_weight, *spec.norm_scale, *projection)
    return any(tensor.requires_grad for tensor in reachable)


def contained(check: Check, look_up: Callable[[str], object] = METHODS.check) -> Check:
    """Let a check run on one thread and leave torch's global generator as it was.

    Tensors are so small here that several threads would mostly wait for each other. An error that
    perdure raises on purpose is a failure of what is checked, unless there is no such name.
    """

    @functools.wraps(check)
    def run(name: str) -> None:
        look_up(name)
        with torch.random.fork_rng(devices=[]), _one_thread():
            try:
                check(name)
            except PerdureError as error:
                raise AssertionError(f"'{name}' was stopped: {error}") from error

    return run


def run_all(checks: Sequence[Check], name: str) -> None:
    """Run every check and report all that fail.

    Raises:
        AssertionError: one or more checks fail; the text names them and says why.
    """
    failed: list[str] = []
    for check in checks:
        try:
            check(name)
        except AssertionError as error:
            failed.append(f"{check.__name__}: {error}")
    listed = "".join(f"\n- {text}" for text in failed)
    assert not failed, f"'{name}' fails {len(failed)} of {len(checks)} checks:{listed}"


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_built: dict[tuple[bool, Kernel], tuple[str, FrozenBackbone]] = {}


def _backbone(projected: bool) -> FrozenBackbone:
    """The random backbone; built anew only if a trial has changed the one at hand."""
    if (projected, KERNEL) in _built:
        digest, backbone = _built[projected, KERNEL]
        if backbone.digest() == digest and not asks_for_gradients(backbone):
            return backbone
    backbone = create_backbone(
        BACKBONE, weights="random", img_size=SIDE, precision="fp32", attention=KERNEL
    )
    if projected:
        dim = backbone.spec.dim
        drawn = torch.randn(PROJECTION, dim, generator=generator(0, "projection")) / dim**0.5
        weight = nn.Parameter(drawn, requires_grad=False)  # as in a timm model
        backbone.spec = dataclasses.replace(backbone.spec, projection=(weight, None))
    _built[projected, KERNEL] = (backbone.digest(), backbone)
    return backbone


def _stream(config: Config, watch: Watch | None) -> Stream:
    source = load_source(config.stream, config.training.seed)
    if watch is not None:
        train, test = watch(source.train, "train"), watch(source.test, "test")
        source = dataclasses.replace(source, train=train, test=test)
    return build_stream(config.stream, config.training.seed, source)
