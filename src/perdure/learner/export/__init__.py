"""Export to ONNX, and the check of the exported file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.learner.export.onnx import Exported, export_onnx
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["Exported", "export_onnx"]
