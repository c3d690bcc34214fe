"""``perdure serve``: a page and REST to teach a model by photos, ask it and correct it."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perdure.atomic import check_place
from perdure.cli.arguments import add_overrides, saved_model
from perdure.cli.new_model import add_new_model, check_folder, check_values, new_model, values_of
from perdure.cli.output import messages, print_json
from perdure.cli.parsing import add_command
from perdure.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from perdure.serve.application import Server

_TOKEN = "PERDURE_TOKEN"
_PORTS = 65535


def add(verbs: Any) -> None:
    """Add the command."""
    command = add_command(verbs, "serve", serve, rest="overrides")
    command.argument("model", "MODEL", "folder of the model; the first lesson makes it")
    add_overrides(command, "of a new model")
    command.option("--host", "ADDRESS", "where to listen", default="127.0.0.1")
    command.option("--port", "N", "0 takes any that is free", type=_port, default=8000)
    command.option(
        "--allow-host",
        "NAME",
        "a name that the server is reached by; may be given again",
        action="append",
        default=[],
    )
    command.flag("--read-only", "predict and evaluate, and refuse every change")
    command.option("--keep-images", "DIR", "keep the images of lessons there, a folder per class")
    command.option("--photos", "DIR", "lessons may name folders in it")
    add_new_model(command)


def serve(args: argparse.Namespace) -> int:
    """Serve a model: one page and REST, to teach it by photos, ask it and correct it.

    Examples:
        perdure serve pets                        then open http://127.0.0.1:8000
        perdure serve pets --read-only --port 9000
        PERDURE_TOKEN=… perdure serve pets --host 0.0.0.0 --allow-host pets.example.org

        Needs: pip install 'perdure[serve]'. Only this machine is listened to unless --host says
        otherwise; then every request must bring a token: that in PERDURE_TOKEN, or a new one, which
        is printed. Nothing leaves the machine, and images of lessons are dropped after them.
        REST is described at /openapi.json.
    """
    folder = saved_model(Path(args.model)) or Path(args.model)
    values = values_of(args)
    check_folder(folder if args.read_only else Path(args.model))
    check_values(folder, values)
    _refuse_keys_of_a_model(folder, values)
    photos = _folder("--photos", args.photos)
    if args.keep_images:
        check_place(Path(args.keep_images))
    try:
        import uvicorn

        from perdure.serve.application import Server, make_application
        from perdure.serve.guard import is_loopback
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"perdure serve needs {error.name}. Type: pip install 'perdure[serve]'"
        ) from error
    from perdure.serve.limits import Limits
    from perdure.serve.served import ServedModel

    token = os.environ.get(_TOKEN, "").strip() or None  # a mounted secret ends in a new line
    if token is None and not all(map(is_loopback, (args.host, *args.allow_host))):
        token = secrets.token_urlsafe(24)
    with _listen(args.host, args.port) as listener:
        device = values.get("device", "auto")
        model = ServedModel(folder, lambda: new_model(values), device, args.read_only)
        keep = Path(args.keep_images) if args.keep_images else None
        server = Server(model, Limits(), photos, keep)
        app = make_application(server, args.host, token, args.allow_host)
        _say(args, server, listener, token)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            lifespan="on",
        )
        serving = uvicorn.Server(config)
        serving.run([listener])
    if serving.started:
        raise KeyboardInterrupt  # nothing but a signal ends it, and asyncio may have swallowed that
    return 1


def _say(
    args: argparse.Namespace, server: Server, listener: socket.socket, token: str | None
) -> None:
    """Say where the page is, on standard output: a program may wait for the line."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    page = f"http://{shown}:{port}/" + (f"#token={quote(token, safe='')}" if token else "")
    if args.json:
        print_json({"url": page, "token": token, "model": str(server.model.folder)})
    else:
        print(f"{server.model.folder} is served at {page}", flush=True)
        messages().print("Ctrl-C ends it.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise OutputError(
            f"Cannot listen on {host}, port {port} ({reason}). Choose another: "
            "--port 0 takes one that is free."
        ) from error


def _refuse_keys_of_a_model(folder: Path, values: dict[str, Any]) -> None:
    from perdure.learner.saved.contents import is_model

    more = [key for key in values if key != "device"]
    if more and is_model(folder):
        raise ConfigError(
            f"{more[0]}: '{folder}' holds a model already, whose lessons go on under its own keys. "
            "Leave it out, or name a folder that does not exist yet."
        )


def _folder(option: str, given: str | None) -> Path | None:
    if given is None:
        return None
    if not Path(given).is_dir():
        raise ConfigError(f"{option} {given}: there is no such folder. Name one with photos in it.")
    return Path(given)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _PORTS:
        raise argparse.ArgumentTypeError(f"'{text}' is no port. Allowed: 0 to {_PORTS}")
    return int(text)
