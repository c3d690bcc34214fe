"""`perdure bench cost`: operations, time, memory and state of every method."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from perdure.backbones.catalog import describe
from perdure.bench.training import (
    CLASSES,
    TrainingStep,
    check_numbers,
    peak_memory,
    random_pixels,
    ratio,
    setting,
    timed,
)
from perdure.engine.build import make_backbone
from perdure.engine.config import Config, make_config
from perdure.engine.model import Model
from perdure.errors import ConfigError
from perdure.heads import HEADS
from perdure.methods import METHODS

REFERENCE = "finetune"
"""Every method's step is timed in turn with a step of this one."""
LATE = 100
"""The late task whose step is compared with the first ones'."""


def trained_methods() -> tuple[str, ...]:
    """Return the methods that train prompts; on frozen features the cost is the backbone's."""
    traits_of = ((name, METHODS[name].traits) for name in METHODS)
    return tuple(name for name, traits in traits_of if traits.trains and not traits.frozen_features)


def methods_on(backbone: str) -> tuple[str, ...]:
    """Return those of `trained_methods` that work on a backbone: some need its image projection.

    Raises:
        UnknownNameError: no such backbone.
    """
    projection = describe(backbone).projection > 0
    return tuple(
        name
        for name in trained_methods()
        if projection or not HEADS[METHODS[name].traits.trained_head].needs_projection
    )


def check_methods(methods: Sequence[str], backbone: str) -> None:
    """Refuse methods whose cost cannot be measured.

    Raises:
        UnknownNameError: no such method or backbone.
        ConfigError: a method without prompts to train, or one that the backbone is not for.
    """
    for method in methods:
        METHODS[method]
        if method not in trained_methods():
            raise ConfigError(
                f"Method '{method}' trains no prompts. Name one that does: "
                f"{', '.join(trained_methods())}."
            )
        if method not in methods_on(backbone):
            raise ConfigError(
                f"Method '{method}' needs an image projection, and '{backbone}' has none. Name a "
                "CLIP, as --backbones clip_vit_base_patch16."
            )


def cost_report(config: Config, pairs: int = 5) -> dict[str, Any]:
    """Measure a method in a process of its own, so that its peak memory is its own; see `measure`."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, config, pairs).result()


def measure(config: Config, pairs: int = 5) -> dict[str, Any]:
    """Measure a method in this process; query passes are not cached.

    Args:
        config: method, backbone, batch size; weights may be random, cost does not depend on them.
        pairs: interleaved steps of the method at task 2, at task 100, and of `REFERENCE`.

    Returns:
        JSON-ready figures.

    Raises:
        ConfigError: a method that cannot be measured here, or a number below 1.
    """
    check_numbers(pairs=pairs)
    check_methods([config.training.method], config.training.backbone)
    frozen, batch_size = make_backbone(config), config.training.batch_size
    pixels = random_pixels(frozen, batch_size)
    early, late = Model(frozen, config), Model(frozen, config)
    reference = make_config({"method": REFERENCE, "backbone": frozen.name})
    steps = {
        "early": TrainingStep(early, pixels),
        "late": TrainingStep(late, pixels, LATE),
        REFERENCE: TrainingStep(Model(frozen, reference), pixels),
    }
    flops = {name: count_flops(step) / batch_size for name, step in steps.items()}
    acts: dict[str, Callable[[], object]] = {**steps, "inference": lambda: early.logits(pixels)}
    seconds = timed(acts, pairs, frozen.device, warm_up=False)  # counting has warmed up
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    growth = (_state_bytes(late, "method.") - _state_bytes(early, "method.")) / (LATE - 2)
    heads = (_state_bytes(late, "heads.") - _state_bytes(early, "heads.")) / (LATE - 2) / CLASSES
    return {
        "method": config.training.method,
        **setting(frozen, batch_size),
        "trainable_parameters": sum(
            p.numel() for g in early.method.param_groups(1.0) for p in g["params"]
        ),
        "state_bytes": _state_bytes(early, "method."),
        "state_bytes_per_task": growth,
        "head_bytes_per_class": heads,
        "train_flops_per_image": flops["early"],
        "train_flops_per_image_task100": flops["late"],
        "inference_flops_per_image": count_flops(acts["inference"]) / batch_size,
        "train_ms_per_image": 1e3 * medians["early"] / batch_size,
        "train_images_per_second": batch_size / medians["early"],
        "inference_ms_per_image": 1e3 * medians["inference"] / batch_size,
        "step_ratio_task100": ratio(seconds["late"], seconds["early"]),
        f"step_ratio_to_{REFERENCE}": ratio(seconds["early"], seconds[REFERENCE]),
        "peak_memory_mib": peak_memory(frozen.device),
    }


class _Counter(TorchDispatchMode):
    """Counter of the operations of matrix products and attention kernels, multiply-adds as two.

    torch's own counter also follows modules, and fails on frozen ones; and it knows neither the
    fused attention kernels of the CPU nor its linear layers in bf16.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kernel = func._overloadpacket
        if kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self.total += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.total += sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
        elif func.name() == "mkldnn::_linear_pointwise":
            self.total += 2 * result.numel() * args[0].shape[-1]
        elif kernel in flop_registry:
            self.total += flop_registry[kernel](*args, **(kwargs or {}), out_val=result)
        return result


def count_flops(act: Callable[[], object]) -> int:
    """Count the operations of a call, multiply-adds as two."""
    with _Counter() as counter:
        act()
    return int(counter.total)


def _state_bytes(model: Model, prefix: str) -> int:
    return sum(v.nbytes for k, v in model.state().items() if k.startswith(prefix))
