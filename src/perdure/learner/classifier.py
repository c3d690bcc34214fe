"""Class-incremental image classifier with scikit-learn's interface: learn, predict, save, load."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped, UInt8
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor

from perdure.backbones.frozen import FrozenBackbone
from perdure.engine.build import make_backbone
from perdure.engine.config import Config
from perdure.engine.events import Sink, ignore
from perdure.engine.model import Model
from perdure.engine.training import learning_mode
from perdure.errors import ConfigError, PerdureError
from perdure.learner.evaluation import Report, evaluate
from perdure.learner.forgetting import Forgotten, forget
from perdure.learner.history import History, Lesson
from perdure.learner.labelled import gather
from perdure.learner.lessons import teach
from perdure.learner.predict_files import Answer, predict_files
from perdure.learner.renaming import merge, rename
from perdure.learner.saved import hub
from perdure.learner.saved.contents import Sizes
from perdure.learner.saved.model import read_model, write_model
from perdure.learner.saved.versions import KEPT
from perdure.learner.settings import (
    EPOCHS,
    METHOD,
    PARAMETERS,
    make_settings,
    next_settings,
    parameters_of,
)
from perdure.learner.state import LearnerState, Prediction
from perdure.learner.suggest import By, Suggestion, suggest
from perdure.learner.suspects import Suspect, Suspects, find_suspects
from perdure.learner.unlabelled import pictures_to_predict
from perdure.streams.decoding import ImageFile
from perdure.streams.images.find_images import Listed

_MAKING_A_LOCK = threading.Lock()


class NotLearnedError(PerdureError, NotFittedError):  # type: ignore[misc]  # sklearn has no types
    """A classifier that has learned nothing yet was asked for something it learned."""


class ContinualClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A classifier that learns new classes, call after call, and keeps the old ones.

    How many calls of `learn` there will be need not be known, and no image is kept. A prediction
    for a picture is the same alone or among others, and needs no task id. A call that fails or is
    interrupted changes nothing. Of several threads that teach one object each waits for its turn, and
    a prediction is that of one state, before a lesson or after it.

    Parameters are only stored, and checked when something is learned, as in scikit-learn:
    ``get_params``, ``set_params`` and ``clone`` work.

    Args:
        method: name of a registered method.
        backbone: the frozen vision transformer: an index-wheel name or a timm name.
        heads: the heads that predict; None for ``gaussian``, or the method's own where it has no
            choice.
        epochs: passes over a lesson's images.
        seed: seed of initialisation, order and held-out images.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        calibration_fraction: share of every class with at least ten images that is kept from
            training in each lesson, to fit the temperature of the probabilities on; 0 trains on
            all images and leaves probabilities as they are. On fixed features under heads in
            closed form none is kept: whatever the share, images are left out in turn.
        options: any other key of a run's configuration, as ``{"lr": 0.003}``.

    Examples:
        >>> clf = ContinualClassifier("lda", "test_vit", options={"weights": "random"})
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
        >>> clf.learn(images, ["cat", "cat", "dog", "dog"]).learn(images[:1], ["owl"]).classes_
        array(['cat', 'dog', 'owl'], dtype='<U3')
    """

    def __init__(
        self,
        method: str = METHOD,
        backbone: str = "clip_vit_base_patch16",
        heads: Sequence[str] | None = None,
        epochs: int = EPOCHS,
        seed: int = 0,
        device: str = "auto",
        calibration_fraction: float | int = 0.1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.heads = heads
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.calibration_fraction = calibration_fraction
        self.options = options

    @classmethod
    def from_model(cls, model: Model, history: History | None = None) -> ContinualClassifier:
        """Make a classifier of a model that has learned already.

        Args:
            model: backbone, method and heads after some tasks.
            history: its lessons, where they are known.
        """
        parameters, options = parameters_of(model.config)
        made = cls(**parameters, options=options or None)
        made._state = LearnerState(model, history or History())
        return made

    # -------------------------------------------------------------------------------------- state

    @property
    def state_(self) -> LearnerState:
        """Model, history, and which of the heads' outputs stand for which class.

        Raises:
            NotLearnedError: nothing was learned yet.
        """
        if not hasattr(self, "_state"):
            raise NotLearnedError(
                'This classifier has learned nothing yet. Type clf.learn("photos") with a folder '
                'per class, or ContinualClassifier.load("model").'
            )
        return self._state

    @property
    def model(self) -> Model:
        """Backbone, method and heads."""
        return self.state_.model

    @property
    def history_(self) -> History:
        """All lessons, temperatures and forgotten classes."""
        return self.state_.history

    @property
    def last_lesson_(self) -> Lesson:
        """The last call of `learn`: its images and classes, and its accuracy.

        Raises:
            NotLearnedError: there was none, or the model was saved before lessons were noted.
        """
        lessons = self.state_.history.lessons
        if not lessons:
            raise NotLearnedError(
                'No lesson of this model was noted. Give it one: clf.learn("photos").'
            )
        return lessons[-1]

    @property
    def suspects_(self) -> tuple[Suspect, ...]:
        """Images of this object's last call of `learn` that it names otherwise without them.

        The clearest first; they are not saved. None where images cannot be left out, as under
        trained prompts, or nothing was learned by this object.
        """
        return getattr(self, "_suspects", ())

    @property
    def classes_(self) -> Shaped[np.ndarray, "c"]:
        """All known classes, sorted, as numbers where all labels were; forgotten ones are left out.

        The order of arrival is in ``history_``.
        """
        return self.state_.classes

    # -------------------------------------------------------------------------------------- learn

    def learn(
        self, data: Any, labels: Any = None, *, on_event: Sink = ignore
    ) -> ContinualClassifier:
        """Learn the classes of these images; classes that are known take them in as more images.

        Args:
            data: a folder with a folder per class (where it has ``train`` and ``test``, the former),
                a table of path and label, ``hf:NAME``, a DataFrame, a data set of Hugging Face, a
                torch Dataset of (image, label), a pair of images and labels, or images.
            labels: names of the classes, one per image, where ``data`` is images alone.
            on_event: receives the events of training.

        Returns:
            Itself.

        Raises:
            StreamError: data of no known kind, or images that cannot be used.
            ConfigError: a parameter that is not allowed, or more images of an old class for a head
                that cannot take them in.
            DivergenceError: a loss that is not finite.
        """
        return self._teach(data, labels, on_event)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> ContinualClassifier:
        """Learn as `learn` does.

        Args:
            X: images.
            y: names of their classes.
            classes: scikit-learn's list of all classes to come; they need not be known here.
        """
        return self.learn(X, y)

    def fit(self, X: Any, y: Any = None) -> ContinualClassifier:
        """Start anew, and learn as `learn` does; if that fails, all is as before."""
        return self._teach(X, y, ignore, anew=True)

    def forget_class(self, name: str | int) -> Forgotten:
        """Remove a class from heads and statistics; the answer names what still carries its influence.

        It may be learned again, as a new class.

        Raises:
            ConfigError: no such class.
            CheckpointError: the model was saved without the statistics it would have to be taken from.
        """
        with self._teaching():
            self._state, forgotten = forget(self.state_, name)
        return forgotten

    def rename_class(self, name: str | int, new: str | int) -> ContinualClassifier:
        """Give a class another name; nothing else changes.

        Raises:
            ConfigError: no such class, or the new name is taken.
            StreamError: the new name is none.
        """
        with self._teaching():
            self._state = rename(self.state_, name, new)
        return self

    def merge_classes(self, name: str | int, into: str | int) -> ContinualClassifier:
        """Make a class part of another; each is scored as it was learned, and the higher score counts.

        Raises:
            ConfigError: no such class, or both are one.
        """
        with self._teaching():
            self._state = merge(self.state_, name, into)
        return self

    # ------------------------------------------------------------------------------------ predict

    def predict(
        self, X: Any, head: str | None = None, reject: float | None = None
    ) -> Shaped[np.ndarray, "n"]:
        """Name the most likely class of every picture; see `logits`.

        With ``reject`` the answer to a picture that is too strange to be of any known class is None,
        in an array of objects.

        Args:
            X: pictures.
            head: one of the evaluated heads; the last one named in the configuration by default.
            reject: share of known images that may be given up, as 0.05: rejected is what has a
                smaller `familiarity`.

        Raises:
            ConfigError: besides what `logits` refuses, a share that cannot be rejected.
        """
        state = self.state_
        head = state.head_name(head)
        state.check_reject(reject, head)
        scores, shares = (
            (_scored(state, X, head), None)
            if reject is None
            else state.familiarity(_batches(state, X), head)
        )
        found: NDArray[Any] = state.classes[scores.argmax(dim=1).cpu().numpy()]
        if reject is not None and shares is not None:
            found = found.astype(object)
            found[(shares < reject).numpy()] = None
        return found

    def familiarity(self, X: Any, head: str | None = None) -> Float64[np.ndarray, "n"]:
        """Share of known images that look at least as strange as each picture, in (0, 1].

        What is of no known class has a small one. Measured on the training images of all lessons,
        each left out in turn, by the score that best told images of classes left out.

        Args:
            X: pictures.
            head: as for `predict`.

        Raises:
            ConfigError: no lesson has measured it.
        """
        state = self.state_
        head = state.head_name(head)
        state.check_reject(0.5, head)
        shares = state.familiarity(_batches(state, X), head)[1]
        assert shares is not None, "check_reject has seen to it"
        return shares.numpy()

    def predict_proba(self, X: Any, head: str | None = None) -> Float64[np.ndarray, "n c"]:
        """Probability of every class for every picture; columns as in ``classes_``, rows sum to 1."""
        state = self.state_
        head = state.head_name(head)
        return state.probabilities(_scored(state, X, head), head).numpy()

    def top(self, X: Any, k: int = 5, head: str | None = None) -> list[tuple[Prediction, ...]]:
        """The k most likely classes of every picture, most likely first; see `logits`.

        Raises:
            ConfigError: k is below 1.
        """
        if k < 1:
            raise ConfigError(f"k={k}: ask for at least the best class, k=1.")
        state = self.state_
        head = state.head_name(head)
        return state.rank(_scored(state, X, head), head, k)

    def logits(self, X: Any, head: str | None = None) -> Float[Tensor, "n c"]:
        """Score every class for every picture, untempered; columns as in ``classes_``.

        Args:
            X: files, PIL images, uint8 arrays (height, width[, 3]), or whatever `learn` takes: a
                folder, a table, ``hf:NAME``, a DataFrame, a data set; labels are not read.
            head: one of the evaluated heads; the last one named in the configuration by default.

        Raises:
            NotLearnedError: nothing was learned yet.
            ConfigError: no such head, or nothing to predict.
            StreamError: something that is no picture, or a file that cannot be decoded.
        """
        state = self.state_
        return _scored(state, X, state.head_name(head))

    def predict_files(
        self,
        files: Iterable[ImageFile | Listed],
        *,
        head: str | None = None,
        top: int = 5,
        batch_size: int | None = None,
        reject: float | None = None,
    ) -> Generator[Answer, None, None]:
        """Predict image files one after the other, however many there are.

        Files are decoded by threads; with more than two cores one batch ahead of the one that is
        predicted. At any time at most two batches of transformed images are held, and as many decoded
        ones as there are threads. An image that cannot be read is answered with the reason, and the
        others go on.

        Args:
            files: image files, taken as they are needed, up to two batches ahead of the answers.
            head: one of the evaluated heads; the last one named in the configuration by default.
            top: number of classes in an answer, at most all.
            batch_size: images per forward; the model's ``eval_batch_size`` by default. It does not
                change the answers.
            reject: share of known images that may be given up, see `predict`.

        Returns:
            A generator of one answer per file, in their order.

        Raises:
            ConfigError: no such head, a number below 1, or a share that cannot be rejected.
        """
        return predict_files(
            self.state_, files, head=head, top=top, batch_size=batch_size, reject=reject
        )

    # ----------------------------------------------------------------------------------- evaluate

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy on labelled images, in [0, 1]; what is given is as for `report`."""
        report = self.report(X, y)
        if sample_weight is None:
            return report.accuracy
        raise ConfigError("sample_weight has no use: every image counts once. Leave it out.")

    def report(
        self, data: Any, labels: Any = None, *, head: str | None = None, reject: float | None = None
    ) -> Report:
        """Accuracy overall, per class and per task, with the calibration error.

        Args:
            data: as for `learn`; where it has ``train`` and ``test``, the latter.
            labels: names of the classes, where ``data`` is images alone.
            head: one of the evaluated heads; the last one named in the configuration by default.
            reject: share of known images that may be given up: how many are, and how many images of
                `none`, is counted too.

        Raises:
            ConfigError: a share that cannot be rejected.
            StreamError: images that cannot be used, or of a class that is not known.
        """
        state = self.state_
        head = state.head_name(head)
        config = state.model.config
        images = gather(data, labels, "test", config.stream, config.training.seed)
        return evaluate(state, images, head, reject)

    def suspects(self, data: Any, labels: Any = None, *, head: str | None = None) -> Suspects:
        """What may be wrong with labelled images, the most suspect first.

        They are judged by each other: which of them were learned does not matter.

        Args:
            data: as for `learn`.
            labels: names of the classes, where ``data`` is images alone.
            head: one of the evaluated heads; the last one named in the configuration by default.

        Raises:
            ConfigError: a head that cannot leave images out.
            StreamError: images that cannot be used.
        """
        state = self.state_
        config = state.model.config
        images = gather(data, labels, "train", config.stream, config.training.seed)
        return find_suspects(state, images, state.head_name(head))

    def suggest(
        self, pool: Any, count: int = 20, *, by: By = "all", head: str | None = None
    ) -> list[Suggestion]:
        """Images of a pool that are worth a label next, the most useful first.

        Args:
            pool: pictures, as for `predict`.
            count: how many, at most all.
            by: ``uncertainty``, ``unknown``, ``diversity`` or ``all``.
            head: one of the evaluated heads; the last one named in the configuration by default.

        Raises:
            ConfigError: no such head or way, or a count below 1.
        """
        state = self.state_
        pictures = pictures_to_predict(pool, state.model.config.stream)
        return suggest(state, pictures, count, state.head_name(head), by)

    # ----------------------------------------------------------------------------- save and load

    def save(
        self,
        folder: Path | str,
        *,
        inference_only: bool = False,
        keep_versions: int = KEPT,
        replace: bool = False,
    ) -> Sizes:
        """Write weights, classes, description and card; the backbone's weights are not part of it.

        Whenever this is interrupted, the folder holds the old model or the new one.

        Args:
            folder: created if need be; a model found there is replaced.
            inference_only: leave out what only learning on reads.
            keep_versions: number of versions of a model found there that are kept for `undo`.
            replace: stand in the place of a model found there: versions before it are kept, it is not.

        Returns:
            Bytes of its tensors.

        Raises:
            OutputError: the folder cannot be written, or has files of something else that would be
                replaced.
        """
        return write_model(
            Path(folder),
            self.state_,
            inference_only=inference_only,
            keep_versions=keep_versions,
            replace=replace,
        )

    @classmethod
    def load(
        cls, folder: Path | str, backbone: FrozenBackbone | None = None, device: str = "auto"
    ) -> ContinualClassifier:
        """Read what `save` wrote.

        Args:
            folder: the model's folder.
            backbone: the backbone it was trained on; built anew from the configuration by default.
            device: where to run, when the backbone is built here.

        Raises:
            CheckpointError: a file is missing or damaged, or the backbone is another one.
        """
        with learning_mode():
            state = read_model(Path(folder), backbone, device)
        return cls.from_model(state.model, state.history)

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        revision: str | None = None,
        backbone: FrozenBackbone | None = None,
        device: str = "auto",
    ) -> ContinualClassifier:
        """Load a model from a folder or from the model hub.

        Args:
            name: a folder, or a repository of the hub, as ``me/model``.
            revision: branch, tag or commit of the repository; the newest by default.
            backbone: see `load`.
            device: see `load`.

        Raises:
            CheckpointError: the model cannot be fetched, is damaged, or the backbone is another one.
        """
        if hub.is_repository(name):
            name = hub.fetch(str(name), revision, backbone is None)
        return cls.load(name, backbone, device)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        inference_only: bool = False,
        licence: str = "unknown",
    ) -> str:
        """Publish the model on the model hub.

        Args:
            repository: its name, as ``me/model``; created if need be.
            private: whether a new repository is for you alone.
            inference_only: leave out what only learning on reads.
            licence: that you publish it under, as the hub spells it: ``apache-2.0``.

        Returns:
            The address of the commit.

        Raises:
            OutputError: it cannot be published.
        """
        return hub.push(self.state_, repository, licence, private, inference_only)

    # -------------------------------------------------------------------------------------- parts

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    def __getstate__(self) -> dict[str, Any]:
        """Parameters, and what was learned as the files of a saved model; the backbone is not in it."""
        state = {key: value for key, value in vars(self).items() if key != "_turn"}
        learned = state.pop("_state", None)
        if learned is not None:
            with tempfile.TemporaryDirectory() as place:
                write_model(Path(place), learned)
                state["_files"] = {file.name: file.read_bytes() for file in Path(place).iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take parameters over, and read what was learned as from a saved model's folder."""
        files = state.pop("_files", None)
        self.__dict__.update(state)
        if files is not None:
            with tempfile.TemporaryDirectory() as place, learning_mode():
                for name, content in files.items():
                    (Path(place) / name).write_bytes(content)
                self._state = read_model(Path(place), None, self.device)

    def settings(self) -> Config:
        """The configuration of the next lesson, checked.

        Raises:
            ConfigError: a parameter that is not allowed.
        """
        fraction: Any = self.calibration_fraction
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or not 0 <= fraction < 1:
            raise ConfigError(
                f"calibration_fraction={fraction!r}: allowed are 0 (none) up to but not including "
                "1, as 0.1."
            )
        return make_settings({key: getattr(self, key) for key in PARAMETERS}, self.options)

    @contextlib.contextmanager
    def _teaching(self) -> Iterator[None]:
        """Wait until no other thread teaches this object."""
        with _MAKING_A_LOCK:  # not made with the object: clones and pickles are without one
            turn: threading.Lock = self.__dict__.setdefault("_turn", threading.Lock())
        with turn:
            yield

    @learning_mode()
    def _teach(self, data: Any, labels: Any, sink: Sink, anew: bool = False) -> ContinualClassifier:
        with self._teaching():
            config, before = self.settings(), None if anew else getattr(self, "_state", None)
            if before is not None:
                before.model.check_can_learn()
                config = next_settings(before.model.config, config)
            images = gather(data, labels, "train", config.stream, config.training.seed)
            if before is None:
                before = LearnerState(Model(make_backbone(config, sink), config))
            share = float(self.calibration_fraction)
            self._state, self._suspects = teach(before, config, images, share, sink)
        return self


def _scored(state: LearnerState, X: Any, head: str) -> Float[Tensor, "n c"]:
    """Scores of one state: a lesson that ends meanwhile changes nothing of them."""
    return state.scores(_batches(state, X), (head,))[head]


def _batches(state: LearnerState, X: Any) -> Iterator[UInt8[Tensor, "_ 3 s s"]]:
    """Transformed pictures of whatever `learn` takes, in batches."""
    pictures = pictures_to_predict(X, state.model.config.stream)
    if not len(pictures):
        raise ConfigError("There is no picture to predict.")
    transform, size = state.transform, state.model.config.runtime.eval_batch_size
    count = len(pictures)
    return (
        torch.stack([transform(pictures.image(i)) for i in range(start, min(start + size, count))])
        for start in range(0, count, size)
    )
