"""The card: true, readable by the hub, and safe whatever classes are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from perdure.learner import ContinualClassifier
from perdure.learner.history import History, Lesson
from perdure.learner.saved.card import backbone_licence, base_model, escape
from perdure.types import Task
from tests.learner.models import OLD, old_classifier

HOSTILE = (
    "a|b",
    "<script>x",
    "[x](http://evil)",
    "two\nlines",
    "`c` **d**",
    "www.evil.com",
    "&lt;",
)


def card_of(classifier: ContinualClassifier, folder: Path, **options: bool) -> str:
    classifier.save(folder, **options)
    return (folder / "README.md").read_text()


def test_front_matter(tmp_path: Path) -> None:
    card = ModelCard(card_of(old_classifier(), tmp_path))
    assert card.data.to_dict() == {
        "library_name": "perdure",
        "pipeline_tag": "image-classification",
        "license": "unknown",
        "tags": [
            "continual-learning",
            "class-incremental-learning",
            "vision-transformer",
            "method:finetune",
        ],
    }


def test_what_it_tells(tmp_path: Path) -> None:
    classifier = old_classifier()
    text = card_of(classifier, tmp_path)
    table = re.findall(r"^\| [12] \|.*$", text, re.MULTILINE)
    assert table == [
        r"| 1 | pattern\_0, pattern\_1 | 16 | 75.0 % | 50.0 % | 16 |",
        r"| 2 | pattern\_2, pattern\_3 | 15 | – | – | – |",
    ]
    assert "# 3 classes, learned by finetune in 2 lessons" in text
    assert r"Forgotten again: pattern\_1." in text
    assert f"`{classifier.model.backbone.digest()}`" in text
    assert "| epochs | 2 |" in text
    assert "| seed |" not in text, "the default"
    assert "- per class one mean feature\n" in text
    assert "3.6 kB (3.1 kB to predict, 548 bytes more to learn on)" in text
    assert "The backbone's weights: none needed, they are random." in text
    assert "can learn new classes" in text
    shown = MarkdownIt().enable("table").render(text)
    assert shown.count("<table>") == 2
    reduced = card_of(classifier, tmp_path, inference_only=True)
    assert "and cannot learn on" in reduced
    assert r"without what only learning reads: heads.linear.feature\_sum, heads" in reduced


def test_without_a_history(tmp_path: Path) -> None:
    text = card_of(ContinualClassifier.from_model(old_classifier().model), tmp_path)
    assert r"| 1 | pattern\_0, pattern\_1 | not recorded | – | – | – |" in text


def test_names_mean_nothing_to_markdown(tmp_path: Path) -> None:
    classifier = old_classifier()
    classifier.model.start_task(Task(2, tuple(range(4, 11)), HOSTILE, 11))
    lesson = Lesson(images=dict.fromkeys(HOSTILE, 1), new=HOSTILE)
    classifier = ContinualClassifier.from_model(classifier.model, History((*OLD.lessons, lesson)))
    text = card_of(classifier, tmp_path)
    page = MarkdownIt("gfm-like", {"linkify": False}).render(text.partition("\n---\n")[2])
    cells = re.findall(r"<td>(.*?)</td>", page)
    shown = "a|b, &lt;script&gt;x, [x](http://evil), two\\nlines, `c` **d**, www.evil.com, &amp;lt;"
    assert shown in cells
    assert "evil" not in "".join(re.findall(r'href="([^"]*)"', page))


def test_many_names_are_cut(tmp_path: Path) -> None:
    lesson = Lesson(images={}, new=tuple(f"c{k}" for k in range(25)))
    text = card_of(
        ContinualClassifier.from_model(old_classifier().model, History((lesson,))), tmp_path
    )
    assert "c18, c19 and 5 more |" in text


@pytest.mark.parametrize(
    ("backbone", "weights", "licence", "base"),
    [
        (
            "vit_base_patch16_224.augreg_in21k",
            "auto",
            "Apache-2.0",
            "timm/vit_base_patch16_224.augreg_in21k",
        ),
        (
            "vit_base_patch16_224.mae",
            "auto",
            "unknown: see https://huggingface.co/timm/vit_base_patch16_224.mae",
            "timm/vit_base_patch16_224.mae",
        ),
        ("clip_vit_base_patch16", "auto", "MIT", None),
        ("clip_vit_base_patch16", "random", "none needed, they are random", None),
        ("test_vit", "/home/me/w.pth", "unknown: see where w.pth came from", None),
        ("by_hand", "auto", "unknown: see where 'by_hand' came from", None),
    ],
)
def test_licence_and_base(backbone: str, weights: str, licence: str, base: str | None) -> None:
    assert backbone_licence(backbone, weights) == licence
    assert base_model(backbone, weights) == base


def test_escape_leaves_words_alone() -> None:
    assert escape("Käfer 3.5 (rot), blau-grün") == "Käfer 3.5 (rot), blau-grün"
