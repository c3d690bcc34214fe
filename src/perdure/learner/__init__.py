"""Classifier for users: it learns lesson after lesson, predicts, is saved and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.lazy import lazy_names

if TYPE_CHECKING:
    from perdure.learner.classifier import ContinualClassifier, NotLearnedError
    from perdure.learner.evaluation import Report, Share
    from perdure.learner.forgetting import Forgotten
    from perdure.learner.history import History, Lesson
    from perdure.learner.pictures import Picture
    from perdure.learner.predict_files import Answer
    from perdure.learner.state import Prediction
    from perdure.learner.suggest import Suggestion
    from perdure.learner.suspects import Suspect, Suspects
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "Answer",
    "ContinualClassifier",
    "Forgotten",
    "History",
    "Lesson",
    "NotLearnedError",
    "Picture",
    "Prediction",
    "Report",
    "Share",
    "Suggestion",
    "Suspect",
    "Suspects",
]
