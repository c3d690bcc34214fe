"""Problem documents (RFC 9457): every refusal as JSON with a title and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from perdure.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DivergenceError,
    OutputError,
    PerdureError,
    StreamError,
)
from perdure.wording import listed, printable

MEDIA_TYPE = "application/problem+json"
_STATUS: dict[type[PerdureError], int] = {
    ConfigError: 422,
    StreamError: 422,
    DivergenceError: 422,
    CheckpointError: 409,
    BusyError: 409,
    OutputError: 507,
}
"""What an error of perdure is to a client; others are the server's own."""


class Problem(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        detail: what was given, what is allowed, what to do next.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = HTTPStatus(status), detail, dict(headers or {})


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build the answer to a request that is refused."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": printable(detail, lines=True),
    }
    return JSONResponse(content, int(status), headers, MEDIA_TYPE)


def as_problem(error: BaseException) -> Problem:
    """Return what an error is to a client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, MemoryError):
        return Problem(413, "There is not enough memory for these images. Send fewer at once.")
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return Problem(status, str(error))
    return Problem(500, f"The server failed ({type(error).__name__}); nothing was changed.")


async def _answer(request: Request, error: Exception) -> Response:
    one = as_problem(error)
    return problem(one.status, one.detail, one.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _http(request: Request, error: HTTPException) -> Response:
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at '{request.url.path}'. What there is: /openapi.json."
    return problem(error.status_code, detail, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return problem(422, f"{listed(faults, 3)}. See /openapi.json.")


HANDLERS: dict[int | type[Exception], Any] = {
    Problem: _answer,
    ClientDisconnect: _gone,
    PerdureError: _answer,
    MemoryError: _answer,
    HTTPException: _http,
    RequestValidationError: _invalid,
    Exception: _answer,
}
