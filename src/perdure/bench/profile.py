"""Where a training step's time goes, by kind of work."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from perdure.bench.training import TrainingStep

KINDS: dict[str, tuple[str, ...]] = {
    "linear layers": ("addmm", "mm", "linear", "mkldnn_linear", "convolution"),
    "attention": ("scaled_dot", "bmm", "baddbmm", "softmax"),
    "activations": ("gelu", "silu", "sigmoid"),
    "norms": ("layer_norm",),
    "copies": ("copy", "cat", "clone", "contiguous", "to", "fill", "zero"),
    "sums and products": ("add", "sub", "mul", "div", "neg", "sum", "mean"),
}
"""Kinds of work with the beginnings of their operators' names, bare of prefixes and underscores."""
OTHER = "other"
_DROPPED = ("aten::", "mkldnn::", "native_", "mkldnn_", "_")


def kind_of(operator: str) -> str:
    """Return the kind of work of an operator, as the profiler names it.

    Example:
        >>> kind_of("aten::native_layer_norm_backward"), kind_of("aten::_softmax")
        ('norms', 'attention')
    """
    bare = operator
    for prefix in _DROPPED:
        bare = bare.removeprefix(prefix)
    for kind, names in KINDS.items():
        if bare in names or bare.startswith(tuple(f"{name}_" for name in names)):
            return kind
    return OTHER


def step_profile(step: TrainingStep, steps: int = 3) -> dict[str, float]:
    """Profile training steps.

    Args:
        step: warmed up.
        steps: how many are profiled; the mean is returned.

    Returns:
        Seconds per step spent in each kind of work, `OTHER` included, the largest first.
    """
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
    seconds = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in recorded.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        seconds[kind_of(event.key)] += spent / 1e6 / steps
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
