"""Events: every kind has the fields that the table names, and is logged unless it is progress."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.engine.events import FIELDS, Event
from perdure.experiment import run
from tests.tiny import small_config

OPTIONAL = {"done", "total", "tasks", "images"}
"""Fields that the table allows to be absent."""


@pytest.mark.long
def test_events_of_a_run_have_the_fields_of_the_table(tmp_path: Path) -> None:
    events: list[Event] = []
    few = {"images_per_class": 2, "test_images_per_class": 1, "epochs": 1}
    config = small_config("l2p", tasks="5+5", heads=["linear", "ncm(drift=mixed)"], **few)
    run(config, tmp_path / "run", diagnose=True, on_event=events.append)
    assert {event.kind for event in events} >= FIELDS.keys() - {"note", "resume"}
    with_losses = set()
    for event in events:
        assert FIELDS[event.kind].keys() - OPTIONAL <= event.fields.keys()
        if event.losses:
            assert event.losses.keys() == {"cross_entropy", "key_pull"}
            with_losses.add((event.kind, event.fields.get("phase")))
    assert with_losses == {("progress", "training"), ("epoch", None)}
    log = [
        json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    ]
    logged = [event for event in events if event.kind != "progress"]
    assert [line["kind"] for line in log] == [event.kind for event in logged]
    assert all(
        event.fields.items() <= line.items() for event, line in zip(logged, log, strict=True)
    )
