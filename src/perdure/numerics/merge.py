"""Merging of what a task changed: a running mean over tasks, or something less."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def merge(
    old: Float[Tensor, "*shape"], new: Float[Tensor, "*shape"], task: int, exponent: float
) -> Float[Tensor, "*shape"]:
    """Scale a task's change of a parameter: old + (new − old) · t⁻ᵃ.

    With a = 1 the result is the running mean over tasks of what each asked for; with a = 0, and
    after the first task, it is ``new``, bit for bit.

    Args:
        old: the parameter before the task.
        new: the parameter after it.
        task: t, counted from 1.
        exponent: a in [0, 1].

    Raises:
        ValueError: a task below 1, or an exponent outside [0, 1].
    """
    if task < 1 or not 0 <= exponent <= 1:
        raise ValueError(f"task {task}, exponent {exponent}: allowed are 1, 2, … and 0 up to 1")
    share = float(task) ** -exponent
    return new if share == 1 else old + (new - old) * share
