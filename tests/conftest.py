"""What holds for every test: shapes and types in signatures are checked at run time."""

from __future__ import annotations

import os

import hypothesis
from jaxtyping import install_import_hook

# Before any test module imports perdure: the hook sees only what is imported after it.
install_import_hook("perdure", "beartype.beartype")

# The first call of a function pays for its type checks, so a deadline would be a coin toss.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
