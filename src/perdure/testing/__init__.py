"""Conformance suite: checks that every method and every head must pass, run by name."""

from perdure.testing.checks import ALL_CHECKS, check_method
from perdure.testing.heads import HEAD_CHECKS, check_head
from perdure.testing.trial import Check, Trial, make_trial

__all__ = [
    "ALL_CHECKS",
    "HEAD_CHECKS",
    "Check",
    "Trial",
    "check_head",
    "check_method",
    "make_trial",
]
