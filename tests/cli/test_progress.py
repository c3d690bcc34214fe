"""What is seen of a run while it goes."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading

import pytest

from perdure.cli import progress
from perdure.cli.progress import (
    BETWEEN_LINES,
    Display,
    LineDisplay,
    LiveDisplay,
    ProgressBar,
    QuietDisplay,
    Rate,
    open_display,
)
from perdure.engine.config import Config, make_config
from perdure.engine.events import Event


@pytest.fixture
def config() -> Config:
    """Return a run with two heads."""
    return make_config({"method": "nsp2", "heads": ["linear", "gaussian"], "batch_size": 10})


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def training(done: int) -> Event:
    fields = {
        "phase": "training",
        "done": done,
        "total": 40,
        "cross_entropy": 0.5,
        "layer_norm": 0.25,
    }
    return Event("progress", 1, fields)


STORY = (
    Event("progress", fields={"phase": "Fetching weights"}),
    Event("run", fields={"method": "nsp2", "sizes": [2, 3]}),
    Event("note", fields={"text": "one image was left out"}),
    Event("resume", fields={"stages_done": 1, "steps_done": 7}),
    Event("task", 1, {"classes": ["a", "b", "c"], "images": 12}),
    training(8),
    training(9),
    Event("progress", 1, {"phase": "survey", "done": 1, "total": 1}),
    Event("epoch", 1, {"epoch": 1, "images_per_second": 3.0}),
    Event("accuracy", 1, {"head": "linear", "accuracy": 0.5}),
    Event("accuracy", 1, {"head": "gaussian", "accuracy": 0.75}),
    Event("checkpoint", fields={"stages_done": 2, "steps_done": 0}),
    Event("done", fields={"seconds": 1.0}),
)
LINES = [
    "nsp2: 2 tasks, 5 classes, clip_vit_base_patch16",
    "note: one image was left out",
    "going on after 1 task, step 7",
    "task 2 of 2: a, b, c (12 images)",
    "accuracy on all 5 classes so far: linear 50.0 %, gaussian 75.0 %",
]


def tell(display: Display) -> None:
    with display as sink:
        for event in STORY:
            sink(event)


def test_lines(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    tell(LineDisplay(config, clock=Clock()))
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines() == ["Fetching weights", *LINES]


def test_lines_come_now_and_then(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = LineDisplay(config, "seed 1", clock)
    display._rate = Rate(clock)
    display(Event("run", fields={"method": "nsp2", "sizes": [2, 3]}))
    for done in range(1, 25):
        clock.now += BETWEEN_LINES / 10
        display(training(done))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "seed 1: 2 tasks, 5 classes, clip_vit_base_patch16",
        "seed 1: task 2 of 2  training 10/40  loss 0.750  10 images/s",
        "seed 1: task 2 of 2  training 20/40  loss 0.750  10 images/s",
    ]


def test_many_classes_are_cut(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"c{number}" for number in range(20)]
    LineDisplay(config)(Event("task", 0, {"classes": names, "images": 9}))
    assert capsys.readouterr().err == (
        "task 1: c0, c1, c2, c3, c4, c5, c6, c7 and 12 more (9 images)\n"
    )


def test_joint_training_has_no_task_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    display = LineDisplay(make_config({"method": "joint"}))
    display(Event("task", 0, {"classes": ["a", "b"], "images": 9}))
    assert capsys.readouterr().err == "tasks together: a, b (9 images)\n"


def test_quiet_still_shows_notes(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    tell(QuietDisplay(config))
    assert capsys.readouterr().err == "note: one image was left out\n"


def test_bars(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    display = LiveDisplay(config, "seed 1")
    with display as sink:
        for event in STORY[:7]:
            sink(event)
        shown = {bar.description: (bar.completed, bar.total) for bar in display._bars.tasks}
        assert shown == {"seed 1: tasks": (1, 2), "seed 1: task 2 of 2  training": (9, 40)}
        assert "loss 0.750" in display._bars.tasks[1].fields["pace"]
        for event in STORY[7:]:
            sink(event)
        shown = {bar.description: (bar.completed, bar.total) for bar in display._bars.tasks}
        assert shown == {"seed 1: tasks": (2, 2), "seed 1: task 2 of 2  survey": (1, 1)}
    assert display._bars.finished
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("seed 1: accuracy")] == [
        f"seed 1: {LINES[-1]}"
    ]


def test_which_display(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_display(config), LineDisplay)
    assert isinstance(open_display(config, quiet=True), QuietDisplay)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_display(config), LiveDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(config), LineDisplay)


def test_a_reader_that_left_does_not_end_a_run(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GonePipe:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stderr", GonePipe())
    tell(LineDisplay(config))


def test_rate() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate("training", 1, 10) is None
    clock.now += 2
    assert rate("training", 5, 10) == 20
    clock.now += 2
    assert rate("survey", 1, 64) is None, "a new phase starts anew"


def test_an_interruption_that_was_swallowed_comes_again(config: Config) -> None:
    """As when Ctrl-C arrives inside a destructor, where Python drops exceptions."""
    display = QuietDisplay(config)
    before = signal.getsignal(signal.SIGINT)
    event = Event("progress", 0, {"phase": "training", "done": 1, "total": 9})
    with display:
        display(event)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            display(event)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_leaves_signals_alone(config: Config) -> None:
    display = QuietDisplay(config)
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def show() -> None:
        with display:
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=show)
    thread.start()
    thread.join()
    assert found == [before]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_bar_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 5.0, 10.0, 10.0, 11.0, 20.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar(of_bytes=True) as bar:
        bar("fetching a.tar", 1, None)
        bar("fetching a.tar", 2_500_000, 5_000_000)
        bar("fetching a.tar", 3, 5)
        bar("unpacking a.tar", 1_000_000, None)
    assert capsys.readouterr().err == (
        "fetching a.tar: 2.5 MB of 5.0 MB\nunpacking a.tar: 1.0 MB\n"
    )


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar() as bar:
        bar("looking at images", 1, 3)
        bar("looking at [images]", 2, 3)
    assert "looking at [images]" in capsys.readouterr().err
