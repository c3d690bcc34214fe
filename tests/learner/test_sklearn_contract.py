"""scikit-learn's own checks, over a classifier whose pictures are drawn from the rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from perdure.learner import ContinualClassifier
from tests.tiny import SIDE, classifier


class RowsAsPictures(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A `ContinualClassifier` of tables: every number of a row is the gray of a field of a picture.

    What it adds is what scikit-learn wants to be checked of a table. Classes, predictions,
    probabilities and their columns are the classifier's.
    """

    def __init__(self, method: str = "lda", seed: int = 0) -> None:
        self.method = method
        self.seed = seed

    def fit(self, X: Any, y: Any) -> RowsAsPictures:
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.middle_, self.width_ = X.mean(axis=0), X.std(axis=0) + 1e-9
        learner = classifier(self.method).set_params(seed=self.seed)
        self.learner_ = learner.fit(self._pictures(X), y)
        self.classes_ = self.learner_.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        pictures = self._checked(X)
        answers: NDArray[Any] = self.learner_.predict(pictures)
        return answers

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        pictures = self._checked(X)
        shares: NDArray[np.float64] = self.learner_.predict_proba(pictures)
        return shares

    def _checked(self, X: Any) -> NDArray[np.uint8]:
        check_is_fitted(self)
        return self._pictures(validate_data(self, X, reset=False))

    def _pictures(self, rows: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Fields side by side, the lighter the larger; the mean is gray."""
        light = np.clip(128 + 40 * (rows - self.middle_) / self.width_, 0, 255).astype(np.uint8)
        across = int(np.ceil(np.sqrt(light.shape[1])))
        fields = np.full((len(light), across * across), 128, np.uint8)
        fields[:, : light.shape[1]] = light
        grid = fields.reshape(-1, across, across)
        places = np.arange(SIDE) * across // SIDE
        return grid[:, places][:, :, places]


CANNOT_HOLD = {
    "check_methods_subset_invariance": "probabilities of a picture differ by float32 rounding, about "
    "1e-5, with the size of its batch, and the check wants 1e-7"
}
"""Checks that cannot hold, with the reason; docs/classifier.md has the same list."""

SAMPLE = (
    "check_classifiers_classes",
    "check_estimators_pickle",
    "check_methods_sample_order_invariance",
)


def _cannot(estimator: object) -> dict[str, str]:
    return CANNOT_HOLD


@pytest.mark.slow
@parametrize_with_checks([RowsAsPictures()], expected_failed_checks=_cannot, xfail_strict=False)
def test_every_check(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("name", SAMPLE)
def test_some_checks(name: str) -> None:
    getattr(estimator_checks, name)("RowsAsPictures", RowsAsPictures())


@pytest.mark.parametrize(
    "name",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
    ],
)
def test_checks_that_need_no_rows(name: str) -> None:
    getattr(estimator_checks, name)("ContinualClassifier", ContinualClassifier())
