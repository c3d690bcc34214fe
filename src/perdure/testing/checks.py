"""All checks that a method must pass, by name."""

from __future__ import annotations

from perdure.methods import METHODS
from perdure.testing.learning import (
    check_backbone_unchanged,
    check_beats_chance,
    check_gradients,
    check_resume,
    check_state_growth,
)
from perdure.testing.merging import check_observers_merge
from perdure.testing.prediction import (
    check_alone_in_batch,
    check_first_block,
    check_no_task_at_test,
    check_prediction_pure,
    check_save_load,
)
from perdure.testing.protection import check_projection
from perdure.testing.reading import check_images_touched
from perdure.testing.trial import Check, run_all

ALL_CHECKS: tuple[Check, ...] = (
    check_backbone_unchanged,
    check_gradients,
    check_prediction_pure,
    check_alone_in_batch,
    check_first_block,
    check_no_task_at_test,
    check_images_touched,
    check_observers_merge,
    check_save_load,
    check_resume,
    check_state_growth,
    check_beats_chance,
    check_projection,
)
"""Each takes the name of a registered method and raises an AssertionError that says what is wrong."""


def check_method(method_name: str) -> None:
    """Run every check on a registered method, and report all that fail.

    Args:
        method_name: the name under which the method is registered.

    Raises:
        UnknownNameError: no such method.
        AssertionError: one or more checks fail; the text names them and says why.

    Examples:
        >>> check_method("ncm")
    """
    METHODS.check(method_name)
    run_all(ALL_CHECKS, method_name)
