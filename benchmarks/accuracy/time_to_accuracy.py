"""Time to accuracy on photographs: seconds until methods that train pass frozen features.

CIFAR-100 of the study (`photos.py`), its recipe, one class order and one head for all. Every number of
epochs is a run of its own, one after the other, and evaluated at its end alone. Give it a quiet core:
the seconds are the clock's. Finished runs are kept; `perdure report FOLDER` draws them.

Usage: OMP_NUM_THREADS=1 python benchmarks/accuracy/time_to_accuracy.py PHOTOS [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from photo_cells import FOLLOWING, RECIPE, ROSTER, STREAMS, folder_name

from perdure.engine.config import make_config
from perdure.errors import PerdureError
from perdure.experiment import run

STREAM = "cifar100"
ORDER = 2024
IPROMPT = "iprompt, merged t^-1/2"
FREER = {"lr": 0.01, "eta1": 0.5, "eta2": 0.5}
"""`nsp2` at a higher rate under half of each projection: tried here, not chosen by `tuned.py`."""
BUDGETS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("lda", 3, {}),
    (IPROMPT, 1, {"prompt_blocks": [5, 6, 7]}),
    (IPROMPT, 1, {}),
    (IPROMPT, 3, {}),
    ("nsp2", 1, {}),
    ("nsp2", 3, {}),
    ("nsp2", 1, {**FREER, "prompt_blocks": list(range(4, 12))}),
    ("nsp2", 1, FREER),
    ("nsp2", 3, FREER),
    ("coda_prompt", 1, {}),
    ("l2p", 1, {}),
    ("dualprompt", 1, {}),
    ("finetune", 1, {}),
)
"""Rows of the study, their numbers of epochs, and what is changed; frozen features have no epochs."""


def main() -> None:
    """Run what is missing, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the sets")
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-accuracy"))
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of rows' names")
    args = parser.parse_args()
    try:
        for row, epochs, changes in BUDGETS:
            if row.startswith(tuple(args.only)):
                _time(row, epochs, changes, args.photos, args.out)
    except PerdureError as error:  # no such folder, or another run in it
        sys.exit(f"error: {error}")


def _time(row: str, epochs: int, changes: Mapping[str, Any], photos: Path, out: Path) -> None:
    name = f"{row}-{epochs}" + "".join(f"-{key}" for key in changes)
    config = config_of(row, epochs, photos).replace(**changes)
    [entry] = run(config, out / folder_name(name), resume=True).entries
    print(
        f"{row}, {epochs} epochs, {changes or 'as in the study'}: "
        f"last {100 * entry['last_accuracy']:.1f} %, {entry['seconds']:.0f} s",
        flush=True,
    )


def config_of(row: str, epochs: int, photos: Path) -> Any:
    """Return the study's configuration of a row with the one head, and so many epochs."""
    keys = {**RECIPE, **STREAMS[STREAM], **ROSTER[row], "seed": ORDER, "epochs": epochs}
    moves, fixed = FOLLOWING
    keys["heads"] = fixed if keys["method"] == "lda" else moves
    keys["evaluate_every"] = 1_000
    return make_config({**keys, "data": str(photos / STREAM)})


if __name__ == "__main__":
    main()
