"""Checks that every method must pass, for those who write one.

>>> from perdure.testing import check_method
>>> check_method("finetune")
"""

from perdure.testing.checks import ALL_CHECKS, check_method
from perdure.testing.trial import Check, Trial, make_trial

__all__ = ["ALL_CHECKS", "Check", "Trial", "check_method", "make_trial"]
