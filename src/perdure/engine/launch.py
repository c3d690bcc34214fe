"""Launch of several processes that learn one run together, on Lightning Fabric.

They are started by ``torchrun``, by ``srun``, or by the run itself (``devices=``). Fabric reads what
started them, forms the process group and says which device is whose. It is told which of these it
was: left to itself it takes any job of SLURM for one of ``srun``. Nothing heavy is imported before it
is known that there are several.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from perdure.errors import ConfigError, RankError

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

    from perdure.engine.config import RuntimeConfig
    from perdure.engine.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for each other; one that ends is noticed at once."""
LAST_WORDS = 20.0
"""Seconds that processes started here have, all of them, to end once this one does."""
PACKAGES = ("perdure", "torch", "torchvision", "timm", "numpy")
"""Packages of which all processes need the same version."""


_RANK = "PERDURE_RANK"
"""Tells processes started here their number."""


@dataclass(frozen=True)
class Layout:
    """Layout of the processes of a run.

    Attributes:
        devices: processes per machine.
        nodes: machines.
        rank: number of this process, from 0.
        started: whether something outside has started them.
        starter: ``torchrun``, ``srun``, or empty for perdure itself.
    """

    devices: int
    nodes: int
    rank: int
    started: bool
    starter: str = ""

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def layout(devices: int = 1, nodes: int = 1) -> Layout:
    """Return the layout that the environment tells, or that these two ask for.

    Args:
        devices: processes per machine; 1 leaves it to what has started them.
        nodes: machines; the same.

    Raises:
        ConfigError: ``torchrun`` or ``srun`` has started others than are asked for, or not as many on
            every machine, or a machine's number is none.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        local, world = int(env["LOCAL_WORLD_SIZE"]), int(env["WORLD_SIZE"])
        machines = int(env.get("GROUP_WORLD_SIZE", world // local))
        found = Layout(local, machines, int(env["RANK"]), started=True, starter="torchrun")
        _check_even(found, world, f"torchrun --nproc-per-node {local}")
    elif (tasks := int(env.get("SLURM_STEP_NUM_TASKS", "1"))) > 1:
        machines = int(env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", "1")))
        rank = int(env["SLURM_PROCID"])
        found = Layout(tasks // machines, machines, rank, started=True, starter="srun")
        _check_even(found, tasks, "srun --ntasks-per-node=…")
    else:
        node = env.get("NODE_RANK", "0") if nodes > 1 else "0"
        if not node.isdecimal() or int(node) >= nodes:
            raise ConfigError(f"NODE_RANK={node} with nodes={nodes}: set it to 0 … {nodes - 1}.")
        first = int(node) * devices
        rank = int(env.get(_RANK, first))
        return Layout(devices, nodes, rank, started=_RANK in env)
    if (devices, nodes) not in ((1, 1), (found.devices, found.nodes)):
        raise ConfigError(
            f"devices={devices} nodes={nodes}, but {found.starter} has started {found.devices} "
            f"processes on each of {found.nodes} machines. Leave devices and nodes out, or start with "
            "plain perdure."
        )
    return found


def _check_even(found: Layout, count: int, command: str) -> None:
    if found.count != count:
        raise ConfigError(
            f"{count} processes on {found.nodes} machines: as many are needed on each. Start them "
            f"with {command} on every machine."
        )


def rank_here(runtime: RuntimeConfig | None = None) -> int:
    """Number of this process among those of a run, as far as is known; 0 where it is alone."""
    return layout(*((runtime.devices, runtime.nodes) if runtime else ())).rank


def joined(runtime: RuntimeConfig) -> Ranks:
    """Return the processes of a run, this one among them; they are started where nothing has.

    Raises:
        ConfigError: devices that there are not, or that Fabric is missing for.
        RankError: the processes do not find each other.
    """
    from perdure.backbones.catalog import resolve_device  # noqa: PLC0415  imports torch
    from perdure.engine.ranks import ALONE  # noqa: PLC0415

    found = layout(runtime.devices, runtime.nodes)
    if found.count == 1:
        return ALONE
    device = resolve_device(runtime.device)
    if device not in ("cpu", "cuda"):
        raise ConfigError(
            f"device={runtime.device} is one device, and {found.count} processes are to share the "
            "run. Type device=cpu, device=cuda or device=auto: each takes its own."
        )
    _check_devices(device, found.devices)
    return _group(found, device)


def _check_devices(device: str, wanted: int) -> None:
    import torch  # noqa: PLC0415

    if device == "cuda" and torch.cuda.device_count() < wanted:
        raise ConfigError(
            f"{wanted} processes on this machine, and {torch.cuda.device_count()} CUDA devices are "
            "visible. Start as many processes as there are devices, or type device=cpu."
        )


@functools.cache
def _group(found: Layout, device: str) -> Ranks:
    """Form the process group; once in the life of a process."""
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415
        from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            f"{found.count} processes need lightning-fabric. Type: "
            "pip install 'perdure[distributed]', or start one process."
        ) from None
    import torch.distributed as dist  # noqa: PLC0415

    from perdure.engine.ranks import Group  # noqa: PLC0415
    from perdure.engine.rendezvous import Meeting, meet  # noqa: PLC0415

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    others = contextlib.nullcontext() if found.started else _others(found)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    with others:
        try:
            environment = _environment(found)
            fabric = Fabric(
                accelerator=device,
                devices=found.devices,
                num_nodes=found.nodes,
                strategy=DDPStrategy(
                    cluster_environment=environment,
                    process_group_backend=backend,
                    timeout=TIMEOUT,
                ),
            )
            served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            host, port = environment.main_address, environment.main_port
            held = meet(Meeting(found.rank, found.count, host, port, served), TIMEOUT)
            fabric.launch()
            del held
        except (RuntimeError, OSError, ValueError) as error:
            raise _not_joined(found, error) from error
    atexit.register(dist.destroy_process_group)
    return Group(fabric.global_rank, fabric.world_size, fabric.device)


def _environment(found: Layout) -> ClusterEnvironment:
    """What Fabric reads who is who from."""
    from lightning_fabric.plugins.environments.lightning import (  # noqa: PLC0415
        LightningEnvironment,
    )
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415
    from lightning_fabric.plugins.environments.torchelastic import (  # noqa: PLC0415
        TorchElasticEnvironment,
    )

    if found.starter == "torchrun":
        return TorchElasticEnvironment()
    if found.starter == "srun":
        # Else Fabric refuses tasks that were counted as --ntasks.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(found.devices))
        return SLURMEnvironment()
    return LightningEnvironment()


def _not_joined(found: Layout, error: Exception) -> RankError:
    reason = str(error).strip().partition("\n")[0]
    where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        advice = "The port is taken: set MASTER_PORT to a free one (torchrun: --master-port)."
    else:
        advice = "Each needs the address of the first machine, and its port open."
    return RankError(f"The {found.count} processes do not meet at {where} ({reason}). {advice}")


@contextlib.contextmanager
def _others(found: Layout) -> Iterator[None]:
    """Start the other processes of this machine: this program again, each told its number.

    Until they have met, one that ends takes this process along; later the process group tells.
    """
    command = _this_program()
    environment = os.environ
    if found.nodes > 1:
        missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if n not in environment]
        if missing:
            raise ConfigError(
                f"nodes={found.nodes} without torchrun or srun: {' and '.join(missing)} not set. Type "
                "the same command on every machine, with MASTER_ADDR and MASTER_PORT of the first, "
                "and NODE_RANK=0, 1, …"
            )
    environment.setdefault("MASTER_ADDR", "127.0.0.1")
    environment.setdefault("MASTER_PORT", str(_free_port()))
    if found.nodes == 1:
        environment["NODE_RANK"] = "0"  # what a cluster may have numbered otherwise
    environment["LOCAL_RANK"] = "0"  # so that Fabric starts none
    started = [
        subprocess.Popen(
            command,
            env={**environment, "LOCAL_RANK": str(local), _RANK: str(found.rank + local)},
        )
        for local in range(1, found.devices)
    ]
    atexit.register(_end, started)
    met = threading.Event()
    threading.Thread(target=_watch, args=(started, met), daemon=True).start()
    try:
        yield
    finally:
        met.set()
        del environment["LOCAL_RANK"]


def _this_program() -> Sequence[str]:
    """The command that runs this program again.

    Raises:
        ConfigError: it is no program, but a session.
    """
    main: Any = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return [sys.executable, "-m", spec.name, *sys.argv[1:]]
    if not getattr(main, "__file__", None):
        raise ConfigError(
            "devices= starts this program again, once per device, and a notebook is none. Type "
            "perdure run … devices=… in a terminal."
        )
    return [sys.executable, *sys.argv]


def _watch(started: Sequence[subprocess.Popen[bytes]], met: threading.Event) -> None:
    while not met.wait(1.0):
        if ended := [one for one in started if one.poll()]:
            sys.stderr.write(
                f"error: process {ended[0].pid}, which was to share the run, has ended before it "
                "began; what it wrote above says why.\n"
            )
            sys.stderr.flush()
            _end(started, 0)
            os._exit(1)


def _end(started: Sequence[subprocess.Popen[bytes]], patience: float = LAST_WORDS) -> None:
    """Let processes end, and end what does not."""
    until = time.monotonic() + patience
    for one in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(max(0.0, until - time.monotonic()))
    for one in started:
        if one.poll() is None:
            one.terminate()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def versions() -> dict[str, str]:
    """Versions that all processes of a run have in common, by package."""
    python = ".".join(str(part) for part in sys.version_info[:2])
    return {"python": python, **{name: version(name) for name in PACKAGES}}
