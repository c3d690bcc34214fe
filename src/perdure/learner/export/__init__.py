"""Export to ONNX and OpenVINO, small files among them, and the check of what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.learner.export.exported import Exported, export_model
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["Exported", "export_model"]
