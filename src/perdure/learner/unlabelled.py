"""Pictures to predict: from whatever `learn` takes, without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data
from PIL import Image

from perdure.cache import expanded
from perdure.errors import StreamError
from perdure.learner.labelled import DatasetPictures, frame_pictures, is_frame, is_hugging_face
from perdure.learner.pictures import as_pictures, open_picture
from perdure.streams import ImageSet, StreamConfig
from perdure.streams.config import HUB
from perdure.streams.images.find_images import Listed
from perdure.streams.sources.file_lists import images_in, is_list
from perdure.streams.sources.huggingface import dataset_pictures, split_of


class _OpenedPictures(ImageSet):
    """Files, PIL images or arrays; nothing is checked before it is opened."""

    def __init__(self, pictures: Sequence[Any]) -> None:
        super().__init__(np.zeros(len(pictures), np.int64), [""] * len(pictures))
        self._pictures = pictures

    def image(self, index: int) -> Image.Image:
        """Return one image, upright, in mode RGB."""
        return open_picture(self._pictures[index])


def pictures_to_predict(data: Any, config: StreamConfig) -> ImageSet:
    """Return the pictures of whatever `learn` takes, in order; labels are not read.

    A folder has those of all folders in it, in alphabetical order; a table has a picture per line,
    whatever it says of training and test; of ``hf:NAME`` the test split is taken.

    Raises:
        StreamError: something without pictures, or pictures that cannot be found.
    """
    if isinstance(data, str | Path):
        return _named(data, config)
    if is_frame(data):
        return _OpenedPictures(frame_pictures(data, config))
    if isinstance(data, dict) and is_hugging_face(data):
        raise StreamError(
            f"This data set has the splits {', '.join(data)}. Name one: predict(data['test'])."
        )
    if is_hugging_face(data):
        return dataset_pictures(data, config, "handed in")
    if isinstance(data, torch.utils.data.Dataset) and hasattr(data, "__len__"):
        return DatasetPictures(data, range(len(data)), np.zeros(len(data), np.int64))
    return _OpenedPictures(as_pictures(data))


def _named(data: str | Path, config: StreamConfig) -> ImageSet:
    """A folder, a table, or a data set of Hugging Face by name."""
    if str(data).startswith(f"{HUB}:"):
        place = str(data).removeprefix(f"{HUB}:")
        return dataset_pictures(split_of(place, "test")[0], config, place)
    path = expanded(data)
    if not is_list(path):
        return _OpenedPictures(as_pictures(data))
    return _OpenedPictures([_readable(one) for one in images_in(path, config)])


def _readable(one: Listed) -> Any:
    if one.fault:
        raise StreamError(f"'{one.path}': {one.fault}. Give yourself the right to read it.")
    return one.path
