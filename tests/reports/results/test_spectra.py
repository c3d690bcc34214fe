"""Spectra of the Grams in a saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perdure.numerics.subspace import null_space
from perdure.reports.figures.report import spectrum_figure
from perdure.reports.results.spectra import read_spectra
from tests.reports.run_folders import finished_run, save_grams


def test_values_and_nullity_are_those_of_the_null_space(tmp_path: Path) -> None:
    run = finished_run(tmp_path, rank_rule="paper")
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [9.0, 8.0, 1.0, 0.1, 0.01]
    )
    gram = rows.T @ rows
    save_grams(
        run, gram_affinity_10=gram, gram_affinity_2=gram.clone(), gram_aggregation_2=torch.eye(3)
    )
    found = read_spectra(run.model, run.config)
    assert [(one.side, one.block) for one in found] == [
        ("affinity", 2),
        ("affinity", 10),
        ("aggregation", 2),
    ]
    first = found[0]
    assert first.nullity == null_space(gram, "paper").shape[1]
    expected = torch.linalg.svdvals(gram.double()).numpy()
    np.testing.assert_allclose(first.values, expected / expected[0], atol=1e-12)


def test_what_is_no_matrix_is_passed_over(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    other = {"projector_affinity_0": torch.eye(4), "images_seen": torch.zeros(())}
    odd = {"gram_affinity_0": torch.zeros(2, 4, 4), "gram_affinity_1": torch.zeros(4, 3)}
    save_grams(run, **odd, **other)
    assert read_spectra(run.model, run.config) == []


def test_an_empty_gram_is_all_null_space(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    save_grams(run, gram_affinity_0=torch.zeros(4, 4))
    (found,) = read_spectra(run.model, run.config)
    assert (found.nullity, found.values.tolist()) == (4, [0, 0, 0, 0])
    assert len(spectrum_figure([found], "nsp2").axes[0].lines) == 2


def test_a_gram_that_is_not_finite_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    save_grams(run, gram_affinity_3=torch.full((4, 4), torch.nan))
    with pytest.raises(ValueError, match="the Gram 'affinity' of block 3 is not finite"):
        read_spectra(run.model, run.config)


def test_a_damaged_model_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    save_grams(run, gram_affinity_0=torch.eye(4))
    run.model.write_bytes(run.model.read_bytes()[:40])
    with pytest.raises(ValueError, match="it is damaged"):
        read_spectra(run.model, run.config)
