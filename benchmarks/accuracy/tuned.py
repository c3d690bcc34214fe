"""Tuning that does not peek: what eight settings judged elsewhere are worth at the end of the stream.

CIFAR-100 of the study (`photos.py`), its recipe, one class order and one head for all. Every method has
eight settings: two learning rates times four values of options of its own, the study's among them. They
are judged after one epoch, as by `perdure tune`: on the first task alone, cut into pseudo-tasks, with
three seeds, or on grocery at the same pixels. The best then learns the whole stream as in the study.
Beside that, on nothing: the study's settings at the higher rate, which shows what that rate alone does.
Finished trials and runs are kept.

Usage: OMP_NUM_THREADS=1 python benchmarks/accuracy/tuned.py PHOTOS [--out FOLDER] [--only nsp2]
       python benchmarks/accuracy/tuned.py PHOTOS --on grocery        (or nothing)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from photo_cells import STREAMS, folder_name
from time_to_accuracy import IPROMPT, config_of

from perdure.engine.config import ChosenOn, Config
from perdure.errors import PerdureError
from perdure.experiment import run
from perdure.tuning import Search, Space, best, make_search, tune

RATES = (0.003, 0.01)
SPACES: dict[str, Space] = {
    IPROMPT: {"pool": (10, 20, 40, 80)},
    "coda_prompt": {"orthogonality": (0.0, 0.1, 1.0, 10.0)},
    "l2p": {"key_pull": (0.0, 0.1, 0.5, 1.0)},
    "dualprompt": {"expert_length": (5, 10, 20, 40)},
    "finetune": {"temperature": (2.0, 5.0, 10.0, 28.0)},
    "nsp2": {"eta1": (0.5, 0.97), "eta2": (0.5, 0.97)},
}
"""Rows of the study, and the options searched beside the learning rate."""
EPOCHS = 3
"""Of the study."""
PLACES = ("first_task", "grocery", "nothing")
"""Where settings are judged."""


def main() -> None:
    """Search and run what is missing, and print two lines for each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the sets")
    parser.add_argument("--out", type=Path, default=Path("runs/tuned"))
    parser.add_argument("--on", choices=PLACES, default=PLACES[0], help="where to judge settings")
    parser.add_argument("--only", nargs="*", default=list(SPACES), choices=SPACES)
    args = parser.parse_args()
    try:
        for row in args.only:
            _learn(row, args.on, args.photos, args.out)
    except PerdureError as error:  # no such folder, or another study that runs there
        sys.exit(f"error: {error}")


def _learn(row: str, place: str, photos: Path, out: Path) -> None:
    folder = out / place / folder_name(row)
    values: Mapping[str, Any] = {"lr": RATES[-1]}
    chosen_on: ChosenOn = "nothing"
    if place != "nothing":
        search = _search(config_of(row, 1, photos), SPACES[row], place, photos)
        chosen = best(tune(search, search.size, folder / "search"))
        assert chosen is not None, "one of them learned"
        score = 100 * (chosen.score or 0)
        print(f"{row}, {place}: {dict(chosen.values)}, {score:.1f} % there", flush=True)
        values, chosen_on = chosen.values, search.chosen_on
    config = config_of(row, EPOCHS, photos).replace(**values, evaluate_every=1, chosen_on=chosen_on)
    [entry] = run(config, folder / "chosen", resume=True).entries
    print(
        f"{row}, {EPOCHS} epochs: last {100 * entry['last_accuracy']:.1f} %, "
        f"forgetting {100 * entry['forgetting']:.1f}, {entry['seconds']:.0f} s",
        flush=True,
    )


def _search(config: Config, options: Space, place: str, photos: Path) -> Search:
    space: Space = {"lr": RATES, **options}
    if place == "first_task":
        seeds = tuple(config.training.seed + more for more in range(3))
        return make_search(config, space, seeds, chosen_on="first_task")
    tasks, images = STREAMS[place]["tasks"], STREAMS[place].get("images_per_class")
    other = {"data": str(photos / place), "tasks": tasks, "images_per_class": images}
    return make_search(config, space, other=other)


if __name__ == "__main__":
    main()
