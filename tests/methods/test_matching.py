"""Keys matched to queries: which prompts an image or a batch takes."""

from __future__ import annotations

import torch

from perdure.methods.matching import choose, share


def test_choice_of_an_image_is_its_own() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
    assert choose(similarity, 2, "image").tolist() == [[1, 2], [0, 2]]
    assert choose(similarity, 1, "image").tolist() == [[1], [0]]


def test_batch_takes_what_most_of_it_chose() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    assert choose(similarity, 1, "batch").tolist() == [[1], [1], [1]]


def test_shares_of_a_choice_sum_to_one() -> None:
    assert share(torch.tensor([[1, 2], [0, 2]]), 4).tolist() == [[0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0]]
