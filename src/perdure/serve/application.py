"""Application of the server: its routes, described by OpenAPI, and the page."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
import torch
from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import BaseModel
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from torch import Tensor

from perdure.errors import CheckpointError, PerdureError
from perdure.learner.changes import Change, changes
from perdure.learner.evaluation import check_known
from perdure.learner.labelled import NONE, gather
from perdure.learner.predict_files import READERS, Answer, answered, read_image
from perdure.learner.state import LearnerState
from perdure.serve.batches import MicroBatches, Scored
from perdure.serve.counts import count
from perdure.serve.guard import Guard
from perdure.serve.limits import Limits
from perdure.serve.monitor import Monitor
from perdure.serve.problems import HANDLERS, Problem, as_problem
from perdure.serve.served import ServedModel, described
from perdure.serve.uploads import (
    checked_name,
    fault_of,
    read_labelled,
    read_pictures,
    refuse_other_kinds,
    refuse_unreadable,
    sweep_unpacked,
)
from perdure.streams.decoding import EncodedImage
from perdure.version import __version__
from perdure.wording import printable

_PAGE = Path(str(resources.files("perdure.serve") / "page"))


def _body(form: dict[str, Any], entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The description of a request that brings images, as a form or as JSON, and what else is in it."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    data = {"type": "string", "format": "byte", "description": "The file in base64."}
    image = {"type": "object", "properties": {"name": {"type": "string"}, "data": data, **entry}}
    images = {"type": "array", "items": image}
    schemas = {
        "multipart/form-data": {
            "type": "object",
            "properties": {"files": files, **form},
            "required": ["files"],
        },
        "application/json": {"type": "object", "properties": {"images": images, **more}},
    }
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


_TO_PREDICT = _body({}, {})
_ONE_OR_EACH = "One per file, or one for all."
_LABELLED = _body(
    {"labels": {"type": "array", "items": {"type": "string"}, "description": _ONE_OR_EACH}},
    {"label": {"type": "string"}},
    folder={"type": "string", "description": "A folder of the server, within that of --photos."},
)


class Renaming(BaseModel):
    """Another name for a class."""

    name: str
    new: str


class Merging(BaseModel):
    """A class that becomes part of another."""

    name: str
    into: str


class Forgetting(BaseModel):
    """A class that is removed."""

    name: str


class Server:
    """What the routes share.

    Args:
        model: is served.
        limits: of a request.
        photos: folder whose folders lessons and evaluations may name.
        keep_images: folder that the images of lessons are kept in; None keeps none.
    """

    def __init__(
        self,
        model: ServedModel,
        limits: Limits,
        photos: Path | None = None,
        keep_images: Path | None = None,
    ) -> None:
        self.model, self.limits, self.photos, self.keep_images = model, limits, photos, keep_images
        self.monitor = Monitor()
        self.batches = MicroBatches(on_batch=self.monitor.batch)
        self.readers: CapacityLimiter | None = None
        for name, about, value in (
            ("classes", "Classes that are known.", lambda: len(described(model)["classes"])),
            ("changes", "Changes since the server began.", lambda: model.version),
            ("waiting_images", "Images that wait for the backbone.", lambda: self.batches.waiting),
        ):
            self.monitor.watch(name, about, value)

    def state(self) -> LearnerState:
        """What answers now.

        Raises:
            Problem: nothing was learned yet.
        """
        state = self.model.state
        if state is None:
            raise Problem(409, "This model has learned nothing yet. Teach it: POST /api/lessons.")
        return state

    async def answer(
        self,
        state: LearnerState,
        images: Sequence[EncodedImage],
        *,
        head: str | None,
        top: int,
        reject: float | None,
    ) -> list[Answer]:
        """Answer images under one state, in batches with whoever asks at the same time."""
        chosen = state.head_name(head)
        state.check_reject(reject, chosen)
        transform = state.transform

        def read(image: EncodedImage) -> Answer | Tensor:
            fault = fault_of(image, self.limits)
            return Answer(image, fault=fault) if fault else read_image(image, transform)

        if self.readers is None:
            self.readers = CapacityLimiter(READERS)
        read_all = (anyio.to_thread.run_sync(read, one, limiter=self.readers) for one in images)
        results = await asyncio.gather(*read_all)
        pixels = [result for result in results if isinstance(result, Tensor)]
        scored = await self._scored(state, chosen, pixels)
        ranked = state.rank(torch.stack([row for row, _ in scored]), chosen, top) if scored else []
        answers = iter(zip(ranked, (share for _, share in scored), strict=True))
        self.monitor.images.inc(len(images))
        return [
            result if isinstance(result, Answer) else answered(image, *next(answers), reject)
            for image, result in zip(images, results, strict=True)
        ]

    async def _scored(self, state: LearnerState, head: str, pixels: list[Tensor]) -> list[Scored]:
        if not pixels:
            return []
        if self.batches.waiting + len(pixels) > self.limits.waiting:
            raise Problem(503, "Too many images wait. Try again in a while.", {"retry-after": "5"})
        futures = self.batches.submit(state, head, pixels)
        try:
            return await asyncio.wait_for(
                asyncio.gather(*map(asyncio.wrap_future, futures)), self.limits.seconds
            )
        except TimeoutError:
            raise Problem(
                503, f"No answer in {self.limits.seconds:.0f} seconds.", {"retry-after": "5"}
            ) from None


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


Shared = Annotated[Server, Depends(_server)]
Top = Annotated[int, Query(ge=1, le=1000, description="Classes in an answer.")]
Head = Annotated[str | None, Query(description="One of the model's heads; the last by default.")]
Reject = Annotated[
    float | None,
    Query(description="Share of known images to give up: what is stranger gets the class null."),
]
InsteadOf = Annotated[
    int | None, Query(description="Number of the last lesson: this one stands in its place.")
]
router = APIRouter()


@router.get("/healthz", summary="Whether the server lives")
async def healthz(server: Shared) -> dict[str, str]:
    """The status is `ok`; `model` is `ready`, `empty` (nothing was learned yet) or `removed`."""
    model = server.model
    ready = "removed" if model.is_gone else "empty" if model.state is None else "ready"
    return {"status": "ok", "model": ready, "perdure": __version__}


@router.get("/api/model", summary="Classes, method and limits")
async def read_model(server: Shared) -> dict[str, Any]:
    """What the model knows, and what may be done with it."""
    return {
        **described(server.model),
        "limits": dataclasses.asdict(server.limits),
        "keeps_images": server.keep_images is not None,
        "perdure": __version__,
    }


@router.post("/api/predict", summary="Name the classes of images", openapi_extra=_TO_PREDICT)
async def predict(
    request: Request, server: Shared, top: Top = 5, head: Head = None, reject: Reject = None
) -> list[dict[str, Any]]:
    """An object per image, as `perdure predict --json` writes it; `error` for what cannot be read."""
    images = await read_pictures(request, server.limits)
    state = server.state()
    answers = await server.answer(state, images, head=head, top=top, reject=reject)
    return [answer.to_dict() for answer in answers]


@router.post("/api/evaluate", summary="Count what is right", openapi_extra=_LABELLED)
async def evaluate(
    request: Request, server: Shared, head: Head = None, reject: Reject = None
) -> dict[str, Any]:
    """Accuracy over all images and per class, the confusions, and the answer to every image.

    With `reject` images labelled `none` are of no class, and right where they get the class null.
    """
    given = await read_labelled(request, server.limits, server.limits.predicted, server.photos)
    skipped, answers = 0, list[Answer]()
    try:
        state = server.state()
        known = (*state.columns.names, *((NONE,) if reject is not None else ()))
        answer = functools.partial(server.answer, state, head=head, top=5, reject=reject)
        if given.labels is None:
            names, files, skipped = await anyio.to_thread.run_sync(_files, state, given.data)
            check_known(dict.fromkeys(names), known)
            for place in range(0, len(files), server.limits.predicted):
                part = files[place : place + server.limits.predicted]
                contents = await anyio.to_thread.run_sync(_contents, part, given.data)
                answers += await answer(contents)
        else:
            names = given.labels
            check_known(dict.fromkeys(names), known)
            answers = await answer(given.data)
    except PerdureError as error:
        if given.labels is not None:
            raise
        told = as_problem(error)  # where an upload was unpacked is nobody's business
        detail = told.detail.replace(str(given.data), given.data.name)
        raise Problem(told.status, detail) from None
    finally:
        given.close()
    counted = count(names, answers, None if NONE in state.columns else NONE)
    return {**counted, "unreadable": counted["unreadable"] + skipped}


def _files(state: LearnerState, folder: Path) -> tuple[list[str], list[Path], int]:
    """Class and file of every image in a folder, and how many cannot be read."""
    refuse_other_kinds(folder)
    config = state.model.config
    stream = dataclasses.replace(config.stream, skip_unreadable=True)
    found = gather(folder, None, "test", stream, config.training.seed)
    names = [found.names[label] for label in found.images.labels.tolist()]
    return names, list(map(Path, found.images.names)), len(found.skipped)


def _contents(files: Sequence[Path], folder: Path) -> list[EncodedImage]:
    """Files of a folder, named by where they lie in it."""
    return [
        EncodedImage(printable(str(file.relative_to(folder))), file.read_bytes()) for file in files
    ]


@router.post("/api/lessons", status_code=202, summary="Teach a lesson", openapi_extra=_LABELLED)
async def teach(
    request: Request, response: Response, server: Shared, instead_of: InsteadOf = None
) -> dict[str, Any]:
    """The lesson is learned in the background; `Location` says where its progress is told."""
    server.model.refuse_change()  # before anything is uploaded
    given = await read_labelled(request, server.limits, server.limits.taught, server.photos)

    def done(learned: bool) -> None:
        try:
            server.monitor.lessons.labels("learned" if learned else "failed").inc()
            if learned and server.keep_images is not None:
                given.keep(server.keep_images)
        finally:
            given.close()

    try:
        if given.labels is not None:
            await anyio.to_thread.run_sync(refuse_unreadable, given.data, server.limits)
        job = server.model.teach(
            given.data, given.labels, images=given.images, instead_of=instead_of, on_done=done
        )
    except BaseException:
        given.close()
        raise
    response.headers["location"] = f"/api/lessons/{job.number}"
    return dataclasses.asdict(job)


@router.get("/api/lessons", summary="List lessons, and what can be undone")
async def read_lessons(server: Shared) -> dict[str, Any]:
    """All lessons; the changes that can be taken back, the newest last; the lesson in progress."""
    model, state = server.model, server.model.state
    kept: list[Change] = []
    if state is not None and not model.is_gone:
        with contextlib.suppress(CheckpointError):  # a damaged version: undo names it
            kept = await anyio.to_thread.run_sync(changes, model.folder)
    lessons = () if state is None else state.history.lessons
    return {
        "lessons": [dataclasses.asdict(lesson) for lesson in lessons],
        "undoable": [{"text": str(change), "time": change.time} for change in kept],
        "job": None if model.job is None else dataclasses.asdict(model.job),
    }


@router.get("/api/lessons/{number}", summary="Tell the progress of a lesson")
async def read_lesson(number: int, server: Shared) -> dict[str, Any]:
    """How far the lesson is, or how it ended; the last one is remembered."""
    job = server.model.job
    if job is None or job.number != number:
        raise Problem(404, f"Lesson {number} is not remembered. GET /api/lessons lists all.")
    return dataclasses.asdict(job)


@router.delete("/api/lessons/last", summary="Undo the last change")
async def undo(server: Shared) -> dict[str, Any]:
    """Take back the last change: a lesson, a new name, a merger."""
    undone = await anyio.to_thread.run_sync(server.model.undo)
    return {"undone": undone, **described(server.model)}


@router.post("/api/classes/rename", summary="Rename a class")
async def rename(asked: Renaming, server: Shared) -> dict[str, Any]:
    """Give a class another name."""
    new = checked_name(asked.new, f"class '{asked.name[:200]}'", server.limits)
    await anyio.to_thread.run_sync(server.model.rename, asked.name, new)
    return {**described(server.model)}


@router.post("/api/classes/merge", summary="Merge two classes")
async def merge(asked: Merging, server: Shared) -> dict[str, Any]:
    """Make a class part of another."""
    await anyio.to_thread.run_sync(server.model.merge, asked.name, asked.into)
    return {**described(server.model)}


@router.post("/api/classes/forget", summary="Forget a class")
async def forget(asked: Forgetting, server: Shared) -> dict[str, Any]:
    """Remove a class, also from what undo could bring back; says what still carries its influence."""
    told = await anyio.to_thread.run_sync(server.model.forget, asked.name)
    return {"forgotten": dataclasses.asdict(told), **described(server.model)}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(server: Shared) -> Response:
    """Requests, batches, lessons and the model, in the text format of Prometheus."""
    return Response(server.monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_PAGE / "index.html")


def make_application(
    server: Server, host: str = "127.0.0.1", token: str | None = None, names: Sequence[str] = ()
) -> ASGIApp:
    """Build the application of a server.

    Args:
        server: what the routes share.
        host: address that is listened on.
        token: that requests must bring; None for none.
        names: further names that the server is reached by.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep_unpacked()
        yield
        server.batches.close()

    app = FastAPI(
        title="perdure",
        version=__version__,
        description="A classifier that is taught by photos.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
    )
    app.state.server = server
    app.include_router(router)
    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    return server.monitor.wrap(Guard(app, host, token, names, server.limits))
