"""The classifier that people use: it learns, predicts, is saved and is loaded."""

from perdure.learner.classifier import ContinualClassifier, Prediction
from perdure.learner.pictures import Picture

__all__ = ["ContinualClassifier", "Picture", "Prediction"]
