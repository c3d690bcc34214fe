"""Model hub: upload and download of a saved model's four files."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from perdure.errors import CheckpointError, OutputError, first_line
from perdure.learner.saved.card import Publication
from perdure.learner.saved.contents import read_description
from perdure.learner.saved.format import CARD, CLASSES, CONFIG, WEIGHTS
from perdure.learner.saved.model import write_model
from perdure.learner.state import LearnerState

FILES = (CONFIG, CLASSES, WEIGHTS, CARD)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LOGIN = "Type: hf auth login"
_UNAUTHORISED, _FORBIDDEN = 401, 403


def is_repository(name: Path | str) -> bool:
    """Tell whether a name is one of the hub's, as ``me/model``; a folder of that name comes first."""
    return isinstance(name, str) and not Path(name).exists() and bool(_REPOSITORY.fullmatch(name))


def fetch(repository: str, revision: str | None, builds_backbone: bool) -> Path:
    """Return the folder of a repository in the hub's cache, fetched if need be.

    A weights file that a stranger's configuration names is not opened, so where the backbone is to be
    built here, the configuration must name none.

    Raises:
        CheckpointError: it cannot be fetched, or its backbone cannot be built by name.
    """
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=list(FILES)
            )
        )
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder '{repository}', and the model hub has no repository of that name "
            f"that you may read. Check the name; for a private one: {_LOGIN}"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"'{repository}' on the model hub has no revision '{revision}'. Leave revision out for "
            "the newest."
        ) from error
    except HFValidationError as error:
        raise CheckpointError(
            f"'{repository}' is no name of a repository ({first_line(error)})."
        ) from error
    except Exception as error:  # whatever the hub's own network stack raises
        raise CheckpointError(
            f"There is no folder '{repository}', and no such repository can be fetched from the "
            f"model hub ({first_line(error)}). On a machine with a network type: "
            f"hf download {repository} --local-dir model"
        ) from error
    weights = read_description(folder).config.get("weights", "auto")
    if builds_backbone and weights not in ("auto", "random"):
        raise CheckpointError(
            f"'{repository}' was trained on a backbone from the file '{Path(weights).name}'. Build "
            "it and give it: backbone=create_backbone(NAME, weights=FILE)"
        )
    return folder


def push(
    state: LearnerState, repository: str, licence: str, private: bool, inference_only: bool
) -> str:
    """Upload a model, as `ContinualClassifier.push_to_hub`; returns the address of the commit.

    Raises:
        OutputError: it cannot be uploaded.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise OutputError(f"'{repository}' is no name of a repository. Type it as me/model.")
    api = huggingface_hub.HfApi()
    with tempfile.TemporaryDirectory() as folder:
        publication = Publication(repository, licence)
        write_model(Path(folder), state, inference_only=inference_only, publication=publication)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Save the model",
                allow_patterns=list(FILES),
            )
        except (LocalTokenNotFoundError, HFValidationError, HfHubHTTPError) as error:
            raise OutputError(_refused(repository, error)) from error
        except Exception as error:  # whatever the hub's own network stack raises
            raise OutputError(
                f"The model hub cannot be reached ({first_line(error)}); nothing was published. "
                "Save the model to a folder, and on a machine with a network type: "
                f"hf upload {repository} FOLDER"
            ) from error
    return str(commit.commit_url)


def _refused(repository: str, error: Exception) -> str:
    """The message for an answer of the hub that refuses an upload."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == _FORBIDDEN:
        return (
            f"You may not write to '{repository}' on the model hub. Choose a repository of your "
            f"own, or a token that may write. {_LOGIN}"
        )
    if status == _UNAUTHORISED or isinstance(error, LocalTokenNotFoundError):
        return f"The model hub does not know you, so '{repository}' was not published. {_LOGIN}"
    return f"The model hub refused '{repository}' ({first_line(error)}); nothing was published."
