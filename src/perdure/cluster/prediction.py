"""Predictions of any number of images on Ray, written shard by shard."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perdure.atomic import alone, atomic_write
from perdure.cache import sha256_of
from perdure.cluster.connection import connected
from perdure.cluster.shards import (
    LISTING,
    Shard,
    containers,
    identity,
    images_at,
    images_in,
    shards_of,
    write_listing,
)
from perdure.errors import CheckpointError, ConfigError, JobError, PerdureError, StreamError
from perdure.extensions import load
from perdure.learner.predict_files import Answer, predict_files
from perdure.learner.saved import format1
from perdure.learner.saved.format import CONFIG
from perdure.learner.saved.model import read_model
from perdure.learner.state import LearnerState
from perdure.streams.images.find_images import Listed
from perdure.streams.shards.opening import is_url
from perdure.wording import counted, listed

JOB = "job.json"
_PART = re.compile(r"part-(\d{6,})\.parquet")
_SHARD_IMAGES = 1024
"""Images of a shard, at least; a multiple of the batch."""
_BLOCKS = 10_000
"""Pieces that Ray Data is given at most; it holds a record of each."""
_ABOUT = b"perdure"
"""Key of what a part says of itself."""


@dataclass(frozen=True)
class Prediction:
    """What is asked of every image.

    Attributes:
        model: folder of the saved model.
        head: the evaluated head.
        top: classes per image.
        batch_size: images that go through the backbone together; a batch ends with its shard.
        reject: share of known images that may be called strange; None for none.
    """

    model: str
    head: str
    top: int
    batch_size: int
    reject: float | None

    @property
    def shard_images(self) -> int:
        """Images of a shard: whole batches, so that answers do not depend on where it is cut."""
        return -(-_SHARD_IMAGES // self.batch_size) * self.batch_size


@dataclass(frozen=True)
class Actors:
    """Processes that hold the model.

    Attributes:
        count: how many; None for as many as the cluster has CPUs or GPUs for.
        threads: threads of each.
    """

    count: int | None = None
    threads: int = 1


@dataclass(frozen=True)
class Done:
    """What was predicted.

    Attributes:
        shards: shards of the source.
        before: those of them that were found finished.
        images: images with an answer or a reason.
        faulty: those with a reason.
        faults: ``"shard: reason"`` per shard that could not be read, and has no answers.
    """

    shards: int
    before: int
    images: int
    faulty: int
    faults: tuple[str, ...]


def predict_on_ray(
    asked: Prediction,
    sources: Sequence[str],
    loose: Callable[[Sequence[str]], Iterator[Listed]],
    out: Path,
    address: str,
    actors: Actors,
    modules: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, shards: None,
) -> Done:
    """Predict the images of a source on Ray; answers are written to ``out``, a file per shard.

    Shards that are finished in ``out`` are not predicted again. A shard that cannot be read is left
    out and told; the others are predicted all the same.

    Args:
        asked: what is asked of every image.
        sources: paths or URLs of images, folders of them, tars, Parquet files or folders of these.
        loose: finds the images that paths stand for, where they are no tars and no Parquet files.
        out: the folder of the answers, which every machine must reach by this path.
        address: of Ray, as for `connected`.
        actors: how many processes hold the model.
        modules: extensions that the model needs.
        on_progress: receives finished shards and shards in all.

    Raises:
        ConfigError: a number that cannot be, or Ray or another package is missing.
        StreamError: a source that cannot be read or holds no image.
        CheckpointError: ``out`` holds other answers.
        OutputError: no Ray answers, or ``out`` cannot be written.
    """
    out = out.absolute()
    with alone(out, "predicting"):
        places = _places(sources, loose, out, asked)
        shards = list(shards_of(places, asked.shard_images))
        if not shards:
            (out / LISTING).unlink(missing_ok=True)
            given = listed([f"'{one}'" for one in sources])
            raise StreamError(f"{given}: there is no image. Name folders, tars or tables of them.")
        _claim(out, {**_job(asked, places), "sources": list(sources)})
        known = _finished(out, shards)
        results = list(known.values())
        left = [shard for shard in shards if shard.number not in known]
        on_progress(len(known), len(shards))
        if left:
            with connected(address) as ray:
                pool = _Pool(asked, str(out), str(Path.cwd()), actors, tuple(modules))
                for result in _predicted(ray, pool, left):
                    results.append(result)
                    on_progress(len(results), len(shards))
        return Done(
            len(shards),
            len(known),
            sum(one["images"] for one in results),
            sum(one["faulty"] for one in results),
            tuple(sorted(one["fault"] for one in results if one["fault"])),
        )


def check_prediction(state: LearnerState, asked: Prediction) -> None:
    """Refuse what no process could predict; nothing is computed.

    Raises:
        ConfigError: a number that is too small, no such head, or a share that cannot be rejected.
    """
    predict_files(state, [], **_options(asked)).close()


def _options(asked: Prediction) -> dict[str, Any]:
    return {key: value for key, value in asdict(asked).items() if key != "model"}


def _places(
    sources: Sequence[str],
    loose: Callable[[Sequence[str]], Iterator[Listed]],
    out: Path,
    asked: Prediction,
) -> list[str]:
    """The tars and Parquet files of the sources, after a listing of their other images."""
    held = {one: containers(one) for one in sources}
    places = [place for found in held.values() for place in found]
    others = [one for one, found in held.items() if not found]
    if not others:
        return places
    listing = out / LISTING
    # Written once: a restart takes the images that the first start found. Without a job it is what a
    # command that was refused has left, maybe of other images.
    if not ((out / JOB).exists() and listing.exists()):

        def images() -> Iterator[tuple[str, str]]:
            for one in others:
                if is_url(one):
                    yield from ((url, "") for url in images_at(one))
                    continue
                for image in loose([one]):
                    if not isinstance(image.path, Path):
                        raise ConfigError(
                            f"'{one}' holds the content of images. With --ray such a table must be a "
                            "Parquet file."
                        )
                    yield str(image.path), image.fault

        write_listing(images(), listing, asked.shard_images)
    return [str(listing), *places]


def _job(asked: Prediction, places: Sequence[str]) -> dict[str, Any]:
    """What answers depend on, JSON-ready."""
    described = (Path(asked.model) / name for name in (CONFIG, format1.CONFIG))
    return {
        "model": sha256_of(next(path for path in described if path.is_file())),
        **_options(asked),
        "shards": {place: identity(place) for place in places},
    }


def _claim(out: Path, job: dict[str, Any]) -> None:
    """Note in a folder what its answers depend on, or check that it is this.

    Raises:
        CheckpointError: it is something else.
    """
    path = out / JOB
    if not path.exists():
        parts = [one.name for one in out.iterdir() if _PART.fullmatch(one.name)]
        if parts:
            raise CheckpointError(
                f"'{out}' holds answers ('{parts[0]}') but no {JOB}. Choose another --out."
            )
        atomic_write(path, (json.dumps(job, indent=1) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text("utf-8"))
        other = [key for key in job if found[key] != job[key]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read ({error}). Choose another --out, or remove it and all answers."
        ) from error
    if other:
        raise CheckpointError(
            f"'{out}' holds answers of another {' and '.join(other)}. Choose another --out, or repeat "
            "the command that began it."
        )


def _finished(out: Path, shards: Sequence[Shard]) -> dict[int, dict[str, Any]]:
    """What finished shards say of themselves, by number; one that cannot be read is not finished."""
    parquet = importlib.import_module("pyarrow.parquet")
    there = {one.name for one in os.scandir(out)}
    found = {}
    for shard in shards:
        name = _part(shard.number)
        if name not in there:
            continue
        try:
            about = json.loads(parquet.read_schema(out / name).metadata[_ABOUT])
        except Exception:
            continue
        found[shard.number] = about
    return found


def _part(number: int) -> str:
    return f"part-{number:06d}.parquet"


@dataclass(frozen=True)
class _Pool:
    """What every process of the pool is told."""

    asked: Prediction
    out: str
    folder: str
    actors: Actors
    modules: tuple[str, ...]


def _predicted(ray: Any, pool: _Pool, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
    """Predict shards by a pool of processes that hold the model; gives what became of each."""
    data = importlib.import_module("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = ray.cluster_resources().get("GPU", 0)
    cpus = ray.cluster_resources().get("CPU", 0)
    count = pool.actors.count or int(gpus or cpus // pool.actors.threads)
    if count < 1 or count * pool.actors.threads > cpus:
        raise ConfigError(
            f"{counted(max(count, 1), 'actor')} of {counted(pool.actors.threads, 'thread')} need more "
            f"than the {counted(int(cpus), 'CPU')} of this Ray. Type fewer --actors or --threads."
        )
    rows = [{"shard": json.dumps(asdict(shard))} for shard in shards]
    work = data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map_batches(
        _Predictor,
        fn_constructor_args=(pool,),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=min(count, len(rows))),
        num_cpus=pool.actors.threads,
        num_gpus=1 if gpus else 0,
    )
    try:
        for row in work.iter_rows():
            yield json.loads(row["result"])
    except ray.exceptions.RayError as error:
        text = re.sub(r"\x1b\[\d*m", "", str(error)).strip() or type(error).__name__
        reason = text.splitlines()[-1]
        raise JobError(
            f"A process that holds the model failed ({reason}). The same command goes on; where "
            "memory is short, type fewer --actors."
        ) from error


class _Predictor:
    """Holder of the model in a process of the pool.

    Args:
        pool: what it is told.
    """

    def __init__(self, pool: _Pool) -> None:
        import torch  # noqa: PLC0415  after Ray has said how many threads there are

        torch.set_num_threads(pool.actors.threads)
        if Path(pool.folder).is_dir():  # paths count from where the command was typed
            os.chdir(pool.folder)
        load(pool.modules)
        self._asked, self._out = pool.asked, Path(pool.out)
        self._state = read_model(Path(pool.asked.model))

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """Predict shards."""
        shards = [Shard(**json.loads(row)) for row in rows["shard"]]
        return {"result": [json.dumps(self._predict(shard)) for shard in shards]}

    def _predict(self, shard: Shard) -> dict[str, Any]:
        images = images_in(shard, self._state.model.config.stream)
        try:
            rows = [
                _row(one) for one in predict_files(self._state, images, **_options(self._asked))
            ]
        except (PerdureError, OSError) as error:
            return {"images": 0, "faulty": 0, "fault": str(error)}
        about = {"images": len(rows), "faulty": sum("error" in row for row in rows)}
        result = {**about, "fault": "", "source": shard.place, "first": shard.first}
        atomic_write(self._out / _part(shard.number), _table(rows, result))
        return result


def _row(answer: Answer) -> dict[str, Any]:
    """A row of the table; the image itself is let go."""
    # File names are bytes, and need be no text.
    path = os.fsencode(str(answer.path)).decode("utf-8", "backslashreplace")
    return {**answer.to_dict(), "path": path}


def _table(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> bytes:
    """A Parquet file with a row per image."""
    arrow, parquet = (importlib.import_module(f"pyarrow{part}") for part in ("", ".parquet"))
    one = arrow.struct([("class", arrow.string()), ("probability", arrow.float64())])
    schema = arrow.schema(
        [
            ("path", arrow.string()),
            ("class", arrow.string()),
            ("probability", arrow.float64()),
            ("familiarity", arrow.float64()),
            ("top", arrow.list_(one)),
            ("error", arrow.string()),
        ],
        {_ABOUT: json.dumps(about).encode()},
    )
    file = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), file)
    return file.getvalue()
