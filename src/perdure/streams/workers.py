"""Number of worker processes that read images; no result depends on it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Literal

from perdure.errors import ConfigError

Workers = int | Literal["auto"]
"""A number of processes, 0 for none beside this one; ``auto`` chooses by the machine."""

MOST = 8
"""Processes that ``auto`` starts at most."""

IMAGES_PER_WORKER = 128
"""Images that must wait to be read for each process that ``auto`` starts: starting one takes about
as long as reading a few dozen."""

BATCHES_PER_WORKER = 2
"""Batches that a process prepares ahead of their use."""

_SHARED = Path("/dev/shm")


def worker_count(workers: Workers, images: int, batch_bytes: int) -> int:
    """Return the number of worker processes.

    A given number is taken as it is. ``auto`` starts none on one or two cores, where they would
    only take turns with the learner, nor where processes are not forked (macOS, Windows): there
    each imports everything anew, and a script without a main guard fails. Elsewhere it leaves one
    core to this process, and takes no more than `MOST`, than there are images for
    (`IMAGES_PER_WORKER`), and than can keep their batches in half of the free shared memory:
    containers often have 64 MiB, and a process that finds it full is killed.

    Raises:
        ConfigError: a negative number.

    Examples:
        >>> worker_count(3, 10_000, 2**20)
        3
    """
    if workers != "auto":
        if workers < 0:
            raise ConfigError(
                f"workers={workers} is negative. Allowed: 0 and above, or auto, as workers=auto."
            )
        return workers
    cores = usable_cores()
    # One core to read and one to learn gained nothing: docs/benchmarks.md.
    if cores <= 2 or not _forked():  # noqa: PLR2004
        return 0
    room = _free_shared_memory() // (2 * BATCHES_PER_WORKER * max(batch_bytes, 1))
    return min(MOST, cores - 1, images // IMAGES_PER_WORKER, room)


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _forked() -> bool:
    """Tell whether new processes are forked."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    return (chosen or multiprocessing.get_all_start_methods()[0]) == "fork"


def _free_shared_memory() -> int:
    """Return the free bytes of the shared memory that batches travel through."""
    where = _SHARED if _SHARED.is_dir() else Path.home()
    return shutil.disk_usage(where).free
