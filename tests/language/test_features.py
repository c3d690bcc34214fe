"""Text features: what a tower computes, what is kept, and files and towers that are refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from perdure.errors import ConfigError, LanguageError
from perdure.language import TEMPLATES, text_features
from perdure.language.tower import Tower
from tests.language.conftest import MODEL, WIDTH

NAMES = ["maple_tree", "n02099601_golden_retriever", "Trousers", "crème brûlée"]


def features(source: str, names: list[str] = NAMES, templates: str = "photo") -> Tensor:
    found = text_features(source, templates, names)
    assert found is not None
    return found


@pytest.mark.parametrize("templates", ["photo", "imagenet"])
def test_features_are_means_of_template_embeddings(
    tower: str, weights: Path, templates: str
) -> None:
    """Twin: one text at a time through open_clip's own calls."""
    model = open_clip.create_model(MODEL, pretrained=str(weights)).eval()
    tokenise = open_clip.get_tokenizer(MODEL)
    words = ["maple tree", "golden retriever", "Trousers", "crème brûlée"]
    wanted = []
    for word in words:
        total = torch.zeros(WIDTH)
        for template in TEMPLATES[templates]:
            text = template.replace("a {}", "{}") if word == "Trousers" else template
            with torch.no_grad():
                vector = model.encode_text(tokenise([text.replace("{}", word)]))[0]
            total += vector / vector.norm()
        wanted.append(total / total.norm())
    torch.testing.assert_close(features(tower, templates=templates), torch.stack(wanted))


def test_order_follows_the_names_and_random_state_stays(tower: str) -> None:
    state = torch.get_rng_state()
    forth, back = features(tower), features(tower, NAMES[::-1])
    torch.testing.assert_close(back, forth.flip(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.long
def test_features_are_computed_once(
    tower: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert text_features(tower, "photo", NAMES, fetch=False) is None
    assert not (tmp_path / "cache").exists()
    first = features(tower)
    calls: list[Any] = []
    encode = Tower.encode

    def counted(self: Tower, texts: list[str]) -> Tensor:
        calls.append(texts)
        return encode(self, texts)

    monkeypatch.setattr(Tower, "encode", counted)
    assert torch.equal(features(tower), first)
    assert calls == []
    kept = text_features(tower, "photo", NAMES, fetch=False)
    assert kept is not None
    assert torch.equal(kept, first)
    features(tower, templates="cifar")
    features(tower, [*NAMES, "eel"])
    assert len(calls) == 2
    assert len(list((tmp_path / "cache" / "text").iterdir())) == 3


def test_other_weights_are_other_texts(tower: str, weights: Path, tmp_path: Path) -> None:
    drawn = safetensors.torch.load_file(weights)
    drawn["text_projection"] = drawn["text_projection"].flip(1).contiguous()
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(drawn, other)
    torch.testing.assert_close(features(f"{MODEL}/{other}"), features(tower).flip(1))


@pytest.mark.long
def test_openai_weights_run_with_their_own_activation(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda *_: {"file": weights, "quick_gelu": True}
    )
    monkeypatch.setattr(open_clip, "download_pretrained", lambda published: published["file"])
    quick = Tower(MODEL, "openai").encode(["a cat"])
    model = open_clip.create_model(MODEL, pretrained=str(weights), force_quick_gelu=True).eval()
    with torch.no_grad():
        wanted = F.normalize(model.encode_text(open_clip.get_tokenizer(MODEL)(["a cat"])), dim=1)
    torch.testing.assert_close(quick, wanted)
    monkeypatch.undo()
    assert not torch.allclose(Tower(MODEL, str(weights)).encode(["a cat"]), wanted, atol=1e-4)


class TestFile:
    """Vectors from a file of the user's."""

    def write(self, folder: Path, **vectors: Tensor) -> str:
        path = folder / "mine.safetensors"
        safetensors.torch.save_file(vectors, path)
        return str(path)

    def test_vectors_are_made_unit_and_ordered(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, a=torch.tensor([3.0, 4.0]), b=torch.tensor([0.0, 2.0]))
        wanted = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
        torch.testing.assert_close(features(source, ["b", "a"]), wanted)
        torch.testing.assert_close(features(source, ["b"]), wanted[:1])

    def test_names_need_no_words(self, tmp_path: Path) -> None:
        source = self.write(tmp_path, n01440764=torch.ones(2))
        assert features(source, ["n01440764"]).shape == (1, 2)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["a", "zebra"], r"no vector for the class 'zebra' \(1 of 2 are missing\)"),
            (["a", "crime"], r"Did you mean 'creme'\?"),
            (["a", "zero"], r"the vector of the class 'zero' is zero or not finite"),
            (["a", "nan"], r"the vector of the class 'nan' is zero or not finite"),
            (["a", "wide"], r"vectors of one width; it has shapes \[2\], \[3\]"),
            (["matrix"], r"vectors of one width; it has shapes \[2, 2\]"),
            (["a", "creme", "twice"], r"'a' and 'twice' have the same text features"),
        ],
    )
    def test_refused(self, tmp_path: Path, names: list[str], message: str) -> None:
        source = self.write(
            tmp_path,
            a=torch.tensor([1.0, 2.0]),
            twice=torch.tensor([2.0, 4.0]),
            creme=torch.tensor([2.0, 1.0]),
            zero=torch.zeros(2),
            nan=torch.tensor([torch.nan, 1.0]),
            wide=torch.ones(3),
            matrix=torch.eye(2),
        )
        with pytest.raises(LanguageError, match=message):
            features(source, names)

    def test_damaged_and_absent(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.safetensors"
        with pytest.raises(ConfigError, match=r"mine\.safetensors': there is no such file"):
            features(str(path))
        path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")
        with pytest.raises(LanguageError, match=r"cannot be read as safetensors .* make it anew"):
            features(str(path))


class TestTower:
    """Towers that cannot be had."""

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("ViT-B-16", "name a model and its weights, as ViT-B-16/openai"),
            ("ViT-B-16/", "name a model and its weights"),
            ("ViT-B16/openai", "no model 'ViT-B16', .* Did you mean 'ViT-B-16'"),
            ("ViT-B-16/opanai", "neither weights of 'ViT-B-16' .* Did you mean 'openai'"),
        ],
    )
    def test_unknown(self, source: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            text_features(source, "photo", NAMES, fetch=False)

    def test_unreachable_hub(self) -> None:
        with pytest.raises(
            LanguageError,
            match=r"'ViT-B-16/openai' are neither cached nor can they be fetched \(.*"
            r"text_features=FILE\.safetensors .* class_embeddings=mean",
        ):
            features("ViT-B-16/openai")

    def test_damaged_weights(self, weights: Path, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.safetensors"
        damaged.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(LanguageError, match=rf"does not hold the weights of '{MODEL}'"):
            features(f"{MODEL}/{damaged}")

    def test_open_clip_is_not_installed(self, tower: str, monkeypatch: pytest.MonkeyPatch) -> None:
        load = importlib.import_module

        def without(name: str) -> Any:
            if name == "open_clip":
                raise ModuleNotFoundError(name)
            return load(name)

        monkeypatch.setattr(importlib, "import_module", without)
        with pytest.raises(
            LanguageError, match=r"pip install 'perdure\[clip\]'.* or take class_em"
        ):
            features(tower)

    def test_texts_cut_to_the_same_tokens_are_refused(self, tower: str) -> None:
        names = ["wide " * 100 + "cat", "wide " * 100 + "dog"]
        with pytest.raises(LanguageError, match="have the same text features"):
            features(tower, names)

    def test_names_differing_in_case_alone_are_refused(self, tower: str) -> None:
        with pytest.raises(LanguageError, match="'Cat' and 'cat' have the same text features"):
            features(tower, ["Cat", "cat"])
