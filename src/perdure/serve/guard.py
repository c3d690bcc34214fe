"""Guard of the server: Host, Origin, token, size and time of every request, and safe headers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.serve.limits import Limits
from perdure.serve.problems import Problem, problem

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
    "'self' blob: data:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


def _place_of(origin: str) -> str | None:
    """Host and port of an origin; None where it is malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses requests that are not meant for this server, too large or too slow.

    A page of another site may make a browser send requests here, under a name that it lets point to
    this machine. So the Host must be this server's (without a token: this machine as it calls itself)
    and an Origin must be the Host.

    Args:
        app: what is guarded.
        host: address that is listened on.
        token: that every request must bring; None for none.
        names: further names that the server is reached by.
        limits: of a request.
    """

    def __init__(
        self, app: ASGIApp, host: str, token: str | None, names: Collection[str], limits: Limits
    ) -> None:
        self._app, self._token, self._limits = app, token, limits
        self._local = is_loopback(host)
        own = () if self._local else (host, socket.gethostname())
        self._names = {"localhost", *(name.lower() for name in (*own, *names))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Problem as refusal:
            # What is still being sent is not read: the connection ends with the answer.
            headers = {**refusal.headers, "connection": "close"}
            await problem(refusal.status, refusal.detail, headers)(scope, receive, safe)
            return
        await self._app(scope, self._bounded(receive), safe)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host, path = headers.get("host", ""), scope["path"]
        if not self._is_own(host):
            raise Problem(
                403,
                f"This server is not called '{host}'. Open it by its address, or start it with "
                "--allow-host NAME.",
            )
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != host:
            raise Problem(403, f"A page of '{origin}' may not use this server.")
        if headers.get("sec-fetch-site", "same-origin") == "cross-site" and path != "/":
            raise Problem(403, "A page of another site may not use this server.")
        # Whether it lives needs no token, nor does the page, which asks for it.
        opened = path in ("/healthz", "/") or path.startswith("/page/")
        if self._token is not None and not opened:
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if kind.lower() != "bearer" or not right:
                what = "is another one" if given else "is missing"
                raise Problem(
                    401,
                    f"The token {what}. Send the header Authorization: Bearer TOKEN, with the token "
                    "that the server printed when it started.",
                    {"www-authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.body_bytes:
            raise _too_large(self._limits)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if _is_address(name):
            # An address is no name that others could let point here.
            return is_loopback(name) or not self._local
        return name in self._names

    def _bounded(self, receive: Receive) -> Receive:
        """Return a receiver of at most so many bytes, in so many seconds."""
        count, ends = 0, time.monotonic() + self._limits.seconds
        whole = False

        async def bounded() -> Message:
            nonlocal count, whole
            if whole:  # only the end of the connection is waited for
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.01, ends - time.monotonic()))
            except TimeoutError:
                raise Problem(
                    408, f"The upload took more than {self._limits.seconds:.0f} seconds."
                ) from None
            count += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if count > self._limits.body_bytes:
                raise _too_large(self._limits)
            return message

        return bounded


def _too_large(limits: Limits) -> Problem:
    most = limits.body_bytes // 10**6
    return Problem(413, f"A request may have {most} MB. Send fewer or smaller images at once.")
