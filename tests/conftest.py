"""What holds for every test: shapes and types in signatures are checked at run time."""

from __future__ import annotations

import gc
import os

# Before torch is imported, here and in every process that a test starts: models are so small that
# several threads would only wait for each other, and two workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
from jaxtyping import install_import_hook

# Nothing that a test writes has to outlive a power cut; tests of what is synced replace this again.
os.fsync = lambda fd: None

# What is made until all tests are collected stays: looking for garbage is a tenth of that time.
gc.disable()

# Before any test module imports perdure: the hook sees only what is imported after it.
install_import_hook("perdure", "beartype.beartype")

# The first call of a function pays for its type checks, so a deadline would be a coin toss.
hypothesis.settings.register_profile("default", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """Let garbage be collected again, of what tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave out checks of shapes and types, a quarter of a run's time, where whole runs are repeated.

    Every function that these call is checked by the other tests.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
