"""The classifier that people use: it learns, predicts, is saved and is loaded."""

from perdure.learner.classifier import ContinualClassifier, NotLearnedError
from perdure.learner.evaluation import Report, Share
from perdure.learner.forgetting import Forgotten
from perdure.learner.history import History, Lesson
from perdure.learner.pictures import Picture
from perdure.learner.state import Prediction

__all__ = [
    "ContinualClassifier",
    "Forgotten",
    "History",
    "Lesson",
    "NotLearnedError",
    "Picture",
    "Prediction",
    "Report",
    "Share",
]
