"""The page in a browser: teach two classes, predict, correct, undo, count; wide and narrow."""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from perdure.serve.served import ServedModel
from tests.serve.browser import chromium
from tests.serve.conftest import png
from tests.serve.live import live
from tests.tiny import classifier

pytestmark = pytest.mark.timeout(300)
SHOTS = os.environ.get("PERDURE_SHOTS")
"""Folder for pictures of the page, for people to look at."""


class Page:
    """What a person does with the page."""

    def __init__(self, browser: Any, tag: str) -> None:
        self.browser, self._tag, self._shots = browser, tag, 0
        self._wait = WebDriverWait(browser, 60, 0.1)

    def until(self, script: str, *given: object) -> Any:
        return self._wait.until(lambda b: b.execute_script(f"return {script}", *given))

    def script(self, text: str, *given: object) -> Any:
        return self.browser.execute_script(text, *given)

    def one(self, css: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def shoot(self) -> None:
        if SHOTS:
            self._shots += 1
            self.browser.save_screenshot(str(Path(SHOTS) / f"{self._tag}-{self._shots}.png"))

    def add(self, *files: Path) -> None:
        before = self.script("return document.querySelectorAll('.tile').length")
        self.one("#choose").send_keys("\n".join(map(str, files)))
        self.until(
            "document.querySelectorAll('.tile').length === arguments[0] && "
            "document.getElementById('work').hidden && "
            "[...document.querySelectorAll('.tile')].every((one) => one.picture.answer)",
            before + len(files),
        )

    def teach(self, places: list[int], label: str) -> None:
        lessons = self.text("#model-about")
        for place in places:
            self.script("document.querySelectorAll('.tile')[arguments[0]].click()", place)
        self.one("#label").send_keys(label, Keys.ENTER)
        self.until("document.getElementById('model-about').textContent !== arguments[0]", lessons)
        self.settled()

    def settled(self) -> None:
        self.until(
            "document.getElementById('work').hidden && document.getElementById('badge')"
            ".textContent !== 'learning…'"
        )

    def text(self, css: str) -> str:
        return str(self.script("return document.querySelector(arguments[0]).textContent", css))

    def answers(self) -> list[str]:
        return [str(one) for one in self.script(
            "return [...document.querySelectorAll('.tile')].map((one) => one.picture.answer.class)"
        )]  # fmt: skip

    def classes(self) -> list[str]:
        return [str(one) for one in self.script(
            "return [...document.querySelectorAll('.class-name')].map((one) => one.textContent)"
        )]  # fmt: skip

    def alert(self) -> str:
        """The last message."""
        return str(self.until("document.querySelector('.alert:last-child p')?.textContent"))

    def fits(self) -> bool:
        return bool(self.script(
            "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
        ))  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, list[Path]]:
    """Pictures as files, a folder per class."""
    made: dict[str, list[Path]] = {}
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        made[name] = [tmp_path / "photos" / name / f"{name} {k}.png" for k in range(6)]
        for place, path in enumerate(made[name]):
            path.write_bytes(png(name, 0, place))
    return made


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve a model that has learned nothing yet."""
    # To random weights a mirror image is another picture, and hides which of so few are suspect.
    fresh = functools.partial(classifier, mirrored=False)
    with live(ServedModel(tmp_path / "<b>pets", fresh)) as page:
        yield page


@pytest.mark.parametrize(
    ("tag", "width", "height", "more"),
    [("wide", 1280, 900, ()), ("narrow", 390, 844, ("--force-dark-mode",))],
)
def test_teach_predict_correct_undo(
    tag: str, width: int, height: int, more: tuple[str, ...], address: str, tmp_path: Path,
    photos: dict[str, list[Path]],
) -> None:  # fmt: skip
    with chromium(tmp_path / "profile", width, height, *more) as browser:
        page = Page(browser, tag)
        browser.get(address)
        page.until("document.body.dataset.state === 'empty'")
        assert page.text("#model-name") == "<b>pets"
        page.shoot()
        page.add(*photos["cat"][:4], *photos["dog"][:4])
        assert "no class yet" in page.text(".tile")
        page.teach([0, 1, 2], "cat")
        page.teach([4, 5, 6], "dog")
        assert page.classes() == ["cat", "dog"]
        page.until("document.querySelectorAll('.tile')[7].picture.answer.class === 'dog'")
        assert page.answers() == ["cat"] * 4 + ["dog"] * 4
        page.shoot()
        # Corrected: what it calls a dog is taught as a class of its own, with markup for a name.
        page.teach([7], "<i>eel</i>")
        assert page.classes() == ["<i>eel</i>", "cat", "dog"]
        assert not page.script("return document.querySelector('aside i:not(.bar i)')")
        assert "Learned <i>eel</i> from 1 picture" in page.alert()
        assert page.fits()
        page.shoot()
        page.script("document.querySelector('#history button').click()")
        page.until("document.querySelectorAll('.class-name').length === 2")
        page.settled()
        assert page.classes() == ["cat", "dog"]
        badges = "return [...document.querySelectorAll('.taught')].map((one) => one.textContent)"
        assert page.script(badges) == ["cat"] * 3 + ["dog"] * 3, "what was taken back is not shown"
        keyboard(page)
        edit(page)
        count(page, photos)
        faulty(page, tmp_path)
        log = [one for one in browser.get_log("browser") if one["level"] == "SEVERE"]
        assert [one["message"] for one in log if "favicon" not in one["message"]] == []


def keyboard(page: Page) -> None:
    """Pictures are selected and taught without a mouse."""
    tile = page.one(".tile")
    page.script("arguments[0].focus()", tile)
    tile.send_keys(" ", Keys.ARROW_RIGHT)
    focused = page.browser.switch_to.active_element
    focused.send_keys(" ")
    assert page.text("#chosen") == "2 pictures selected"
    focused.send_keys(Keys.ENTER)
    assert page.browser.switch_to.active_element.get_attribute("id") == "label"
    page.shoot()
    page.script("document.querySelector('.tile').focus()")
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert page.script("return document.getElementById('teach').hidden")


def edit(page: Page) -> None:
    """A class is renamed; forgetting asks first, and may be called off."""
    choose = """const select = document.querySelector('.classes select'); select.value = arguments[0];
        select.dispatchEvent(new Event('change'));"""
    page.script(choose, "rename")
    field = page.one("#dialog-input")
    field.clear()
    field.send_keys("hound", Keys.ENTER)
    page.until("document.querySelectorAll('.class-name')[1].textContent === 'hound'")
    page.script(choose, "forget")
    page.until("document.getElementById('dialog').open")
    assert "cannot be undone" in page.text("#dialog-text")
    page.shoot()
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until("!document.getElementById('dialog').open")
    assert page.classes() == ["dog", "hound"]
    page.script("document.querySelector('#history button').click()")
    page.until("document.querySelectorAll('.class-name')[0].textContent === 'cat'")
    page.settled()


def count(page: Page, photos: dict[str, list[Path]]) -> None:
    """A labelled folder is counted; a cat among the dogs is shown."""
    wrong = photos["dog"][0].parent / "wrong.png"
    wrong.write_bytes(photos["cat"][5].read_bytes())
    page.one("#evaluate-folder").send_keys(str(photos["dog"][0].parent.parent))
    page.until("document.querySelector('.score')")
    assert page.text(".score") == "92.3 %"
    assert page.text(".confusion summary") == "dog taken for cat: 1"
    assert page.script("return document.querySelectorAll('.confusion img').length") == 1
    page.script("document.querySelector('.score').scrollIntoView({block: 'center'})")
    page.shoot()


def faulty(page: Page, tmp_path: Path) -> None:
    """What is no picture gets its reason, and the others go on."""
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.add(tmp_path / "bad.png")
    assert "not readable" in page.text('.tile[data-kind="fault"]')
    assert "1 not readable" in page.text("#summary")


def test_suspects_are_kept_relabelled_or_dropped(
    address: str, tmp_path: Path, photos: dict[str, list[Path]]
) -> None:
    for place, name in enumerate(("eel", "owl")):  # two that are none of their folder's class
        photos["cat"][place].write_bytes(png("dog", 7, place))
        photos["dog"][place].write_bytes(png(name, 7, place) if place else png("cat", 7))
    with chromium(tmp_path / "profile", 1280, 900) as browser:
        page = Page(browser, "suspects")
        browser.get(address)
        page.until("document.body.dataset.state === 'empty'")
        page.one("#choose-folder").send_keys(str(photos["cat"][0].parent.parent))
        page.until("document.querySelectorAll('.tile').length === 12")
        page.until("[...document.querySelectorAll('.tile')].every((one) => one.picture.answer)")
        page.script("document.getElementById('select-all').click()")
        page.script("document.getElementById('teach-folders').click()")
        page.until("!document.getElementById('suspects').hidden")
        told = page.script(
            "return [...document.querySelectorAll('#suspect-list p')].map((one) => one.textContent)"
        )
        whose = page.script(
            "return [...document.querySelectorAll('#suspect-list select')].map((one) => one.ariaLabel)"
        )
        assert {f"Class of {name}.png" for name in ("cat 0", "cat 1", "dog 0")} <= {*whose}
        assert any("Taught as cat; without it: dog" in one for one in told)
        assert page.browser.switch_to.active_element.get_attribute("id") == "suspects-title"
        page.shoot()
        choose = """for (const select of document.querySelectorAll('#suspect-list select')) {
            const name = select.ariaLabel.replace('Class of ', '');
            if (name in arguments[0]) select.value = arguments[0][name];
        }
        document.getElementById('suspects-done').click();"""
        version = page.text("#model-about")
        page.script(choose, {"cat 0.png": "dog", "cat 1.png": "\0", "dog 0.png": "cat"})
        page.until(
            "document.querySelector('.alert:last-child p')?.textContent.includes('11 pictures')"
        )
        # Marks and counts are those of the next reading of the model, after it is told.
        page.until("document.querySelector('.class-images').textContent === '5 images'")
        page.until(
            "[...document.querySelectorAll('.tile')]"
            ".find((one) => one.title === 'cat 1.png').picture.taught === undefined"
        )
        assert page.text("#model-about") == version, "one lesson stands in the other's place"
        marks = page.script(
            "return Object.fromEntries([...document.querySelectorAll('.tile')]"
            ".map((one) => [one.title, one.picture.taught ?? '']))"
        )
        assert [marks[f"{name}.png"] for name in ("cat 0", "cat 1", "dog 0", "dog 1")] == [
            "dog", "", "cat", "dog",
        ]  # fmt: skip
        counts = (
            "return [...document.querySelectorAll('.class-images')].map((one) => one.textContent)"
        )
        assert page.script(counts) == ["5 images", "6 images"]
        assert page.fits()
        page.shoot()


def test_pictures_are_pasted_dropped_and_photographed(
    address: str, tmp_path: Path, photos: dict[str, list[Path]]
) -> None:
    """As files of a clipboard and of a drag; the camera is Chromium's own stand-in."""
    hand_over = """const [name, kind, encoded, done] = arguments;
        const bytes = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type: 'image/png' }));
        transfer.items.add(new File(['no picture'], 'notes.txt', { type: 'text/plain' }));
        const event = kind === 'paste'
          ? new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true })
          : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.getElementById('drop').dispatchEvent(event);
        return document.body.classList.contains('over');"""
    with chromium(tmp_path / "profile", 390, 844) as browser:
        page = Page(browser, "handed")
        browser.get(address)
        page.until("document.body.dataset.state === 'empty'")

        def hand(kind: str, path: Path) -> Any:
            return page.script(
                hand_over, path.name, kind, base64.b64encode(path.read_bytes()).decode()
            )

        hand("paste", photos["cat"][0])
        page.until("document.querySelectorAll('.tile').length === 1")
        assert hand("dragover", photos["dog"][0]), "where it may be dropped is shown"
        assert not hand("drop", photos["dog"][0])
        page.until("document.querySelectorAll('.tile').length === 2")
        page.script("document.getElementById('open-camera').click()")
        page.until(
            "document.getElementById('camera').open && document.getElementById('video').videoWidth"
        )
        page.shoot()
        page.script("document.getElementById('camera-take').click()")
        page.until("document.querySelectorAll('.tile').length === 3")
        page.script("document.getElementById('camera-close').click()")
        page.until("document.querySelector('#camera:not([open])')")
        page.until("!document.getElementById('video').srcObject.active")  # told by an event, later
        labels = "return [...document.querySelectorAll('.tile')].map((one) => one.title)"
        titles = page.script(labels)
        assert titles[:2] == ["cat 0.png", "dog 0.png"]
        assert titles[2].startswith("camera ")
        assert page.fits()


def test_read_only_and_token(pets: Path, tmp_path: Path) -> None:
    model = ServedModel(pets, read_only=True)
    with (
        live(model, "192.0.2.7", "secret") as address,
        chromium(tmp_path / "p", 900, 700) as browser,
    ):
        page = Page(browser, "token")
        browser.get(address)
        page.until("document.getElementById('dialog').open")
        page.one("#dialog-input").send_keys("secret", Keys.ENTER)
        page.until("document.body.dataset.state === 'ready'")
        assert "Read-only" in page.text("#banner")
        assert page.text("#badge") == "read-only"
        assert not page.script("return document.querySelector('.classes select')")
        page.shoot()
        browser.get("about:blank")
        browser.get(f"{address}#token=wrong")
        page.until("document.getElementById('dialog').open")
        assert "#" not in browser.current_url
