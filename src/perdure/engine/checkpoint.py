"""Checkpoints: saved states from which a run resumes, bit for bit.

A point consists of a *base*, the whole state after the last finished stage, and of a small *step*
file with what is being trained. ``manifest.json`` names the newest point and the one before it, each
file with its sha256. A file is written under a new name, synced and read back before the manifest
points at it, and what neither point needs is deleted last; so whenever the process is killed, the
manifest names whole files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors
import safetensors.numpy
from pydantic import Field, NonNegativeInt, TypeAdapter
from torch import Tensor

from perdure.atomic import atomic_write, make_folder
from perdure.errors import CheckpointError

FORMAT = 3
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StoredFile:
    """A checkpoint file: name, in the checkpoint folder, and checksum."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]
    sha256: str


@dataclass(frozen=True)
class Point:
    """A checkpoint: position of a run and the files that hold its state.

    Attributes:
        stages_done: stages that are finished.
        steps_done: training steps taken in the next stage.
        prepared: whether the base was taken after the next stage's data-dependent initialisation.
        base: state of method and heads; None before anything is finished.
        step: parameters and optimiser state; None at the beginning of a stage.
        seconds: working time so far.
    """

    stages_done: NonNegativeInt = 0
    steps_done: NonNegativeInt = 0
    prepared: bool = False
    base: StoredFile | None = None
    step: StoredFile | None = None
    seconds: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether the next stage has begun."""
        return self.prepared or self.step is not None

    @property
    def progress(self) -> dict[str, int]:
        """The stages and steps done, as events tell them."""
        return {"stages_done": self.stages_done, "steps_done": self.steps_done}

    @property
    def files(self) -> list[StoredFile]:
        """The files that this point needs."""
        return [file for file in (self.base, self.step) if file is not None]


class Checkpoints:
    """The checkpoint folder of one run.

    Args:
        folder: created when the first checkpoint is written.
        config_hash: hash of the configuration of the run that owns the folder.
    """

    def __init__(self, folder: Path, config_hash: str) -> None:
        self._folder = folder
        self._hash = config_hash
        self._points: list[Point] = []

    def save(
        self, name: str, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]
    ) -> StoredFile:
        """Write one file of tensors and JSON notes, and read it back.

        Args:
            name: file name without suffix, not used by a live point.
            tensors: by name.
            notes: JSON-ready values kept in the same file.

        Raises:
            OutputError: it cannot be written; earlier points are intact.
            CheckpointError: what was read back differs from what was written.
        """
        make_folder(self._folder)
        # by numpy, which takes a third of the time: a head may have a tensor for every task
        held = {key: value.detach().cpu().contiguous().numpy() for key, value in tensors.items()}
        data = safetensors.numpy.save(held, metadata={"notes": json.dumps(notes)})
        digest = hashlib.sha256(data).hexdigest()
        stored = StoredFile(f"{name}.safetensors", digest)
        path = self._folder / stored.name
        atomic_write(path, data)
        if path.read_bytes() != data:
            raise _damaged(path, "what was read back is not what was written")
        return stored

    def commit(self, point: Point) -> None:
        """Make a saved point the newest; keep the one before it, delete older ones."""
        self._points = [point, *self._points[:1]]
        manifest = {
            "format": FORMAT,
            "config_hash": self._hash,
            "points": [asdict(kept) for kept in self._points],
        }
        atomic_write(self._folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        needed = {file.name for kept in self._points for file in kept.files}
        for path in self._folder.glob("*.safetensors"):
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def latest(self) -> Point | None:
        """Return the newest point whose files are there and whole; None where there is no point.

        A file that is gone means that the user removed it, as the error below advises: then the
        point before is taken.

        Raises:
            CheckpointError: the manifest or a file is damaged, or belongs to another configuration.
        """
        path = self._folder / MANIFEST
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_text("utf-8"))
            same = manifest["format"] == FORMAT and manifest["config_hash"] == self._hash
            self._points = _POINTS.validate_python(manifest["points"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"'{path}' is damaged ({_reason(error)}). Start again with another --out."
            ) from None
        if not same:
            raise CheckpointError(
                f"'{path}' belongs to another configuration or version of perdure. Run with the "
                "folder's own config.toml, or choose another --out."
            )
        while self._points:
            point = self._points[0]
            if all((self._folder / file.name).exists() for file in point.files):
                for file in point.files:
                    self._verify(file)
                return point
            self._points = self._points[1:]
        raise CheckpointError(
            f"No checkpoint in '{self._folder}' is complete. Start again with another --out."
        )

    def read(self, stored: StoredFile) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the tensors and notes of a verified file.

        Raises:
            CheckpointError: it is none that `save` wrote, its checksum forged.
        """
        path = self._folder / stored.name
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                notes = json.loads(file.metadata()["notes"])
            if not isinstance(notes, dict):
                raise ValueError("its notes are no JSON object")
        except (safetensors.SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                f"'{path}' is no checkpoint of perdure ({_reason(error)}). Start again with "
                "another --out."
            ) from None
        return tensors, notes

    def _verify(self, stored: StoredFile) -> None:
        path = self._folder / stored.name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != stored.sha256:
            raise _damaged(path, "its checksum is not the one noted when it was written")


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' is damaged: {reason}. Delete that file and use --resume again to go on from the "
        "checkpoint before it."
    )


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0]


_POINTS = TypeAdapter(list[Point])
