"""Conformance suite: checks that every method must pass; ``check_method(name)`` runs all of them."""

from perdure.testing.checks import ALL_CHECKS, check_method
from perdure.testing.trial import Check, Trial, make_trial

__all__ = ["ALL_CHECKS", "Check", "Trial", "check_method", "make_trial"]
