"""Connection to Ray: a cluster that is there, or one of this machine for as long as a command runs."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perdure.errors import ConfigError, OutputError

_PATIENCE = 5.0
"""Seconds in which an address must answer."""
_STORE = 256 * 2**20
"""Bytes of shared memory of a Ray of our own: names and counts pass through it, no images."""
_EXAMPLES = "--ray HOST:6379, --ray ray://HOST:10001, or --ray alone for this machine"


def import_ray() -> Any:
    """Import Ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("--ray needs Ray. Type: pip install 'perdure[ray]'") from error


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to Ray for as long as the context lasts; gives the module ``ray``.

    Args:
        address: of a cluster, as ``HOST:6379`` or ``ray://HOST:10001``, or ``auto`` for the one that
            runs on this machine. Empty: the one that ``RAY_ADDRESS`` names, else one is started here
            and ends with the context.

    Raises:
        ConfigError: Ray is not installed, or the address cannot be one.
        OutputError: nobody answers there, or only another version of Ray or Python.
    """
    ray = import_ray()
    address = address or os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {"address": address} if address else _own()
    if address and address not in ("auto", "local"):
        _check_answers(address)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise OutputError(
            f"No Ray can be used at '{address or 'this machine'}' ({reason}). Type {_EXAMPLES}."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _own() -> dict[str, Any]:
    # Our work is what the machine is there for: Ray's workers would run at priority 15.
    os.environ.setdefault("RAY_worker_niceness", "0")
    return {
        "address": "local",  # else one that somebody else has started here would be taken
        "include_dashboard": False,
        "object_store_memory": _STORE,
    }


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--ray {address}: this is no address. Type {_EXAMPLES}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:
        raise OutputError(
            f"--ray {address}: nobody answers there ({error.strerror or error}). Start Ray on that "
            f"machine (ray start --head), or type {_EXAMPLES}."
        ) from error
