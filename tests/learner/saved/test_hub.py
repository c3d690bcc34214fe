"""The model hub, with its functions replaced by ones that copy folders."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from perdure.engine.config import make_config
from perdure.errors import CheckpointError, OutputError
from perdure.learner import ContinualClassifier
from perdure.learner.saved.hub import is_repository
from tests.learner.models import FILES, backbone, load, names, old_classifier, same


class Hub:
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, allow_patterns: list[str]
    ) -> SimpleNamespace:
        for path in Path(folder_path).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, self.root / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, allow_patterns: list[str]
    ) -> str:
        assert revision in (None, "main")
        to = self.root / "cache" / repo_id
        to.mkdir(parents=True, exist_ok=True)
        for path in (self.root / repo_id).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, to)
        return str(to)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Return a hub that stands in for the real one."""
    monkeypatch.chdir(tmp_path)
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_there_and_back(hub: Hub) -> None:
    old = old_classifier()
    assert old.push_to_hub("me/model", private=True) == "https://hub/me/model/commit/1"
    assert hub.private == {"me/model": True}
    there = hub.root / "me" / "model"
    assert names(there) == {path.name for path in there.iterdir()} == FILES
    assert 'from_pretrained("me/model")' in (there / "README.md").read_text()
    (there / "pickled.bin").write_bytes(b"anything")
    (there / "code.py").write_bytes(b"anything")
    model = old.model
    model.backbone = backbone()
    back = ContinualClassifier.from_pretrained("me/model", "main", backbone())
    assert same(back, old)
    assert names(hub.root / "cache" / "me" / "model") == FILES


def test_options(hub: Hub) -> None:
    old_classifier().push_to_hub("me/model", inference_only=True, licence="cc-by-4.0")
    loaded = ContinualClassifier.from_pretrained("me/model", backbone=backbone())
    assert loaded.model.inference_only
    card = (hub.root / "me" / "model" / "README.md").read_text()
    assert huggingface_hub.ModelCard(card).data.license == "cc-by-4.0"


def test_a_folder_comes_first(hub: Hub) -> None:
    folder = Path("me/model")
    assert is_repository("me/model")
    old_classifier().save(folder)
    assert not is_repository("me/model")
    assert same(ContinualClassifier.from_pretrained("me/model", backbone=backbone()), load(folder))
    assert same(ContinualClassifier.from_pretrained(folder, backbone=backbone()), load(folder))
    for name in ("model", "./me/model2", "/me/model", "a/b/c"):
        with pytest.raises(CheckpointError, match="There is no folder"):
            ContinualClassifier.from_pretrained(name)


def test_paths_of_this_machine_stay_here(hub: Hub) -> None:
    classifier = old_classifier()
    values = {
        **classifier.model.config.flat(),
        "weights": "/home/me/w.safetensors",
        "data": "folder:/home/me/photos",
        "class_order": "/home/me/order.txt",
        "text_features": "~/texts.safetensors",
    }
    classifier.model.config = make_config(values, "/home/me/mine.toml")
    classifier.push_to_hub("me/model")
    there = hub.root / "me" / "model"
    text = "".join((there / name).read_text() for name in FILES - {"weights.safetensors"})
    assert "/home" not in text
    assert "~" not in text
    assert "mine.toml" in text
    with pytest.raises(
        CheckpointError, match=r"from the file 'w\.safetensors'\. Build it and give"
    ):
        ContinualClassifier.from_pretrained("me/model")
    back = ContinualClassifier.from_pretrained("me/model", backbone=backbone())
    assert same(back, classifier)


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """An error as the hub's client raises it, whichever network library it is built on."""
    error = kind.__new__(kind)
    error.args = (f"{status} said the hub\nand more",)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


NOT_FETCHED = {
    r"no folder 'me/model', and .* no repository of that name .* Type: hf auth login": answer(
        RepositoryNotFoundError, 401
    ),
    r"'me/model' on the model hub has no revision 'v2'\. Leave revision out": answer(
        RevisionNotFoundError, 404
    ),
    r"can be fetched .* \(OfflineModeIsEnabled: no network\)\. .* hf download me/model --local-dir": (
        OfflineModeIsEnabled("no network")
    ),
    r"\(ConnectionError: refused\)": ConnectionError("refused"),
    r"'me/model' is no name of a repository \(HFValidationError: odd\)": (
        huggingface_hub.errors.HFValidationError("odd")
    ),
}


@pytest.mark.parametrize("text", NOT_FETCHED)
def test_what_cannot_be_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(NOT_FETCHED[text]))
    with pytest.raises(CheckpointError, match=text):
        ContinualClassifier.from_pretrained("me/model", "v2")


NOT_PUSHED = {
    r"does not know you, so 'me/model' was not published\. Type: hf auth login": answer(
        HfHubHTTPError, 401
    ),
    r"hub does not know you": LocalTokenNotFoundError("no token"),
    r"You may not write to 'me/model' .* Type: hf auth login": answer(HfHubHTTPError, 403),
    r"refused 'me/model' \(HfHubHTTPError: 500 said the hub\)": answer(HfHubHTTPError, 500),
    r"cannot be reached \(ConnectionError: refused\).* hf upload me/model FOLDER": ConnectionError(
        "refused"
    ),
}


@pytest.mark.parametrize("text", NOT_PUSHED)
def test_what_cannot_be_pushed(hub: Hub, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(hub, "create_repo", failing(NOT_PUSHED[text]))
    with pytest.raises(OutputError, match=text):
        old_classifier().push_to_hub("me/model")


def test_a_name_that_is_no_repository(hub: Hub) -> None:
    with pytest.raises(
        OutputError, match=r"'model' is no name of a repository\. Type it as me/mod"
    ):
        old_classifier().push_to_hub("model")
