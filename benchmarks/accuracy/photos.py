"""Study on photographs: every method, kind of head and class order in one recipe.

Every run is a cell. A finished cell's figures go to photos.json beside this file, and are not run
again; a run that was interrupted goes on. What is run, at which size and for how long, stands in this
file and was settled before the first cell. At the end the tables between the markers of
docs/results.md are written anew from the figures that are there.

Usage: python benchmarks/accuracy/photos.py PHOTOS                     everything (hours on 2 cores)
       python benchmarks/accuracy/photos.py PHOTOS --only cifar100/iprompt --orders 2024
       python benchmarks/accuracy/photos.py --tables                   write tables and pictures anew

PHOTOS has the folders cifar100, grocery and clothing, each with ``train`` and ``test`` and in these a
folder per class.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock
from photo_cells import FIGURES, Cell, cells, figures, recipe_of
from photo_tables import hours, pictures, tables
from results import write_tables

from perdure import __version__
from perdure.atomic import atomic_write
from perdure.engine.build import make_backbone, make_stream
from perdure.engine.config import Config
from perdure.engine.staleness import ageing_heads, all_seen_accuracy
from perdure.errors import PerdureError
from perdure.experiment import run
from perdure.learner import ContinualClassifier


def finish(cell: Cell, root: Path) -> dict[str, Any]:
    """Run a cell, keep its figures, and remove its folder."""
    done = run(cell.config, cell.folder(root), resume=True)
    bounds = _all_seen(cell.config, done.folder)
    heads = {
        entry["head"]: {
            "last": entry["last_accuracy"],
            "average": entry["average_incremental_accuracy"],
            "forgetting": entry["forgetting"],
            "all_seen": bounds.get(entry["head"]),
            "curve": [round(value, 4) for value in entry["accuracy_curve"]],
            "state_bytes": entry["cost"]["state_bytes"],
        }
        for entry in done.entries
    }
    seconds = done.entries[0]["seconds"]
    found = {"recipe": cell.recipe, "version": __version__, "seconds": seconds, "heads": heads}
    with FileLock(root / "figures.lock"):
        atomic_write(FIGURES, json.dumps(figures() | {str(cell): found}, indent=1).encode())
    shutil.rmtree(cell.folder(root))
    return found


def _all_seen(config: Config, folder: Path) -> dict[str, float]:
    """Last accuracy of heads fitted to all training images at the end, where features move."""
    if config.training.adapt != "all" or not ageing_heads(config):
        return {}
    model = ContinualClassifier.load(folder / "model", make_backbone(config)).model
    return all_seen_accuracy(model, make_stream(config).tasks)


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", nargs="?", help="folder of the sets")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cells' names")
    parser.add_argument("--orders", nargs="*", type=int, help="class orders; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--tables", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.tables:
        if args.photos is None:
            parser.error("name the folder of photographs, or --tables")
        asked = [
            cell
            for cell in cells(args.photos)
            if str(cell).startswith(tuple(args.only))
            and (args.orders is None or cell.order in args.orders)
        ]
        try:
            for cell in asked:
                _run(cell, args.out)
        except PerdureError as error:  # no such folder, or another study that runs there
            sys.exit(f"error: {error}")
    held = figures()
    write_tables(tables(held))
    pictures(held)
    there, taken = hours(held)
    print(f"{there} of {len(cells(Path()))} cells; their runs took {taken:.1f} hours of one core")


def _run(cell: Cell, root: Path) -> None:
    held = figures().get(str(cell))
    if held:
        other = recipe_of(held) != cell.recipe
        lacking = [head for head in cell.config.head_names if head not in held["heads"]]
        if not other and not lacking:
            return
        why = "are of another recipe" if other else f"lack {', '.join(lacking)}"
        print(f"{cell}: kept figures {why}, so it is run again", flush=True)
    found = finish(cell, root)
    shown = (f"{head} {100 * of['last']:.1f}" for head, of in found["heads"].items())
    print(f"{cell}: {', '.join(shown)}; {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
