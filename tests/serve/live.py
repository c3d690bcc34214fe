"""A server in a thread of this process, on a port of its own: a browser needs a real one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from perdure.serve.application import Server, make_application
from perdure.serve.limits import Limits
from perdure.serve.served import ServedModel


@contextmanager
def live(model: ServedModel, host: str = "127.0.0.1", token: str | None = None) -> Iterator[str]:
    """Serve a model; the address of its page on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = make_application(Server(model, Limits()), host, token)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
