"""Independent jobs on Ray, each in a process of its own: runs, and trials of a search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.cluster.connection import connected
from perdure.errors import ConfigError, JobError
from perdure.extensions import load
from perdure.wording import counted


@dataclass(frozen=True)
class Resources:
    """What every job is given.

    Attributes:
        cpus: CPUs, and threads.
        gpus: GPUs, or a share of one; None for one where the cluster has any.
    """

    cpus: int = 1
    gpus: float | None = None


Submit = Callable[..., Callable[[], Any]]
"""Starts a function with arguments elsewhere, and returns what waits for its result."""


@contextmanager
def jobs_on_ray(
    address: str, resources: Resources, modules: Sequence[str] = ()
) -> Iterator[Submit]:
    """Start jobs on Ray for as long as the context lasts; gives what starts one.

    A job has a process of its own, in the folder and with the extensions of this one, which every
    machine must have. What waits for it raises `JobError` where it failed, and stops no other job.
    A process that is ended from outside is started once more.

    Args:
        address: as for `connected`.
        resources: of every job.
        modules: extensions to import.

    Raises:
        ConfigError: Ray is not installed, or no machine has the resources.
        OutputError: no Ray answers.
    """
    with connected(address) as ray:
        gpus = resources.gpus
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = float(any(node.get("GPU", 0) for node in nodes))
        if not any(
            node.get("CPU", 0) >= resources.cpus and node.get("GPU", 0) >= gpus for node in nodes
        ):
            wanted = counted(resources.cpus, "CPU") + (f" and {gpus:g} GPU" if gpus else "")
            most = max(int(node.get("CPU", 0)) for node in nodes)
            raise ConfigError(
                f"A job of {wanted} fits on no machine of this Ray; the largest has "
                f"{counted(most, 'CPU')}. Type fewer --cpus or --gpus."
            )
        remote = ray.remote(num_cpus=resources.cpus, num_gpus=gpus, max_calls=1, max_retries=1)(
            _work
        )
        here = str(Path.cwd())

        def submit(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
            call = ray.cloudpickle.dumps((function, args))
            future = remote.remote(call, here, resources.cpus, tuple(modules)).future()
            return lambda: _result(ray, future)

        yield submit


def _result(ray: Any, future: Any) -> Any:
    try:
        result, fault = future.result()
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise JobError(f"its process did not come back ({reason})") from error
    if fault:
        raise JobError(fault)
    return result


def _work(call: bytes, folder: str, threads: int, modules: tuple[str, ...]) -> tuple[Any, str]:
    """Carry out a job in its process; gives its result, or why there is none."""
    import torch  # noqa: PLC0415  after Ray has said how many threads there are
    from ray import cloudpickle  # noqa: PLC0415  not installed with perdure

    torch.set_num_threads(threads)
    try:
        if not Path(folder).is_dir():
            return None, f"'{folder}' is no folder on {os.uname().nodename}: share it, as by NFS"
        os.chdir(folder)
        load(modules)
        function, args = cloudpickle.loads(call)
        return function(*args), ""
    except Exception as error:  # of any kind: it must not stop other jobs
        return None, str(error) or type(error).__name__
