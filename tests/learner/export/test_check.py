"""An exported file that disagrees with the model is refused, a tie is not."""

from __future__ import annotations

import pytest
import torch

from perdure.errors import ExportError
from perdure.learner.export.check import largest_difference


def test_another_class_is_refused_and_a_tie_is_not() -> None:
    ours = torch.tensor([[1.0, 1.00008]])
    assert largest_difference(ours, 1.0, [ours.flip(1), ours.flip(1).softmax(1)], "random") < 1e-4
    theirs = [torch.tensor([[1.0, 0.99]]), ours.softmax(1)]
    with pytest.raises(ExportError, match=r"logits differ by up to 0\.01"):
        largest_difference(ours, 1.0, theirs, "random")
    with pytest.raises(ExportError, match=r"probabilities differ by up to 0\.5"):
        largest_difference(ours, 1.0, [ours, torch.tensor([[1.0, 0.5]])], "random")
    with pytest.raises(ExportError, match="differ by up to nan"):
        largest_difference(ours, 1.0, [ours[:, :1], ours.softmax(1)], "random")
