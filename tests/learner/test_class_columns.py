"""Columns of class scores: forgotten classes are passed over, labels of one name are one class."""

from __future__ import annotations

import torch

from perdure.learner.class_columns import ClassColumns


def test_labels_of_one_name_are_one_class() -> None:
    columns = ClassColumns(("a", "b", "a", "c", "b"), (1,))
    assert columns.names == ("a", "b", "c")
    assert columns.labels("a") == (0, 2)
    scores = torch.tensor([[1.0, 9.0, 2.0, 3.0, 4.0], [5.0, 9.0, -1.0, 3.0, 0.0]])
    assert columns.class_scores(scores).tolist() == [[2, 4, 3], [5, 0, 3]]
    assert columns.of(torch.tensor([0, 2, 3, 4])).tolist() == [0, 0, 2, 1]
