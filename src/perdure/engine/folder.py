"""Run folder: its claim, configuration and environment."""

from __future__ import annotations

import json
import os
import platform
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch

from perdure.atomic import atomic_write, is_leftover
from perdure.backbones.attention import KERNELS, Kernel
from perdure.engine.config import Config, neutral_keys, parts_of
from perdure.engine.old_keys import current
from perdure.errors import CheckpointError, OutputError
from perdure.keys import defaults_of, keys_of

PACKAGES = ("perdure", "torch", "torchvision", "timm", "numpy", "safetensors")
CONFIGURATION = "config.toml"
"""Name of the file by which a run claims its folder."""
ENVIRONMENT = "env.json"
"""Name of the file that holds versions, machine and what was chosen by it."""


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return versions and machine, as in ``env.json``."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: version(name) for name in PACKAGES},
    }


def kernel_of(folder: Path) -> Kernel | None:
    """The attention kernel that the run in a folder has computed with; None where nothing tells.

    Raises:
        CheckpointError: ``env.json`` names a kernel that there is not.
    """
    file = folder / ENVIRONMENT
    try:
        named = json.loads(file.read_text("utf-8")).get("attention")
    except (OSError, ValueError, AttributeError):
        return None
    for kernel in KERNELS:
        if named == kernel:
            return kernel
    if named is None:
        return None
    raise CheckpointError(
        f"'{file}' says that the run computed attention by '{named}', which is not one of "
        f"{', '.join(KERNELS)}. Choose another --out, or name attention=fused or attention=products."
    )


def preset_of(folder: Path, config: Config) -> str | None:
    """The preset by which the run in a folder was begun; the configuration's where nothing tells.

    A run that goes on with its own ``config.toml`` must leave the results of one that was not
    interrupted.
    """
    try:
        noted = json.loads((folder / ENVIRONMENT).read_text("utf-8")).get("preset", config.preset)
    except (OSError, ValueError, AttributeError):
        return config.preset
    return noted if noted is None or isinstance(noted, str) else config.preset


def write_environment(
    folder: Path,
    device: torch.device,
    kernel: Kernel,
    processes: int = 1,
    preset: str | None = None,
) -> None:
    """Write versions, machine, kernel, number of processes and the preset into a run's folder."""
    chosen = {"attention": kernel, "processes": processes, "preset": preset}
    text = json.dumps({**environment(device), **chosen}, indent=1)
    atomic_write(folder / ENVIRONMENT, text.encode())


def claim_folder(path: Path, config: Config, resume: bool) -> None:
    """Create or reopen the folder of a run, and note the configuration in it.

    Args:
        path: the folder.
        config: configuration of the run.
        resume: whether a run found there is to go on.

    Raises:
        OutputError: it cannot be created or written, or already holds a run and ``resume`` is off.
        CheckpointError: it holds a run of another configuration.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        content = not all(is_leftover(one.name) for one in path.iterdir())
    except OSError as error:
        raise OutputError(
            f"The folder '{path}' cannot be used ({error.strerror}). Choose another --out."
        ) from error
    if content and not resume:
        raise OutputError(
            f"The folder '{path}' is not empty. Add --resume to go on with the run in it, "
            "or choose another --out."
        )
    file = path / CONFIGURATION
    if file.exists():
        _check_same(file, config)
    elif content:
        raise CheckpointError(
            f"The folder '{path}' holds no run: it has no {CONFIGURATION}. Choose another --out."
        )
    else:
        atomic_write(file, tomli_w.dumps(_as_toml(config.flat())).encode())


def _as_toml(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


def _check_same(path: Path, config: Config) -> None:
    new, parts = _as_toml(config.flat()), parts_of(config.training.method)
    try:
        written = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read ({error}). Choose another --out.") from None
    now = current(written, keys_of(*parts))
    # A key that came since stands at its default, under which nothing else is computed.
    old = {**_as_toml(defaults_of(*parts)), **now}
    neutral = neutral_keys(new)
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k) and k not in neutral]
    if keys:
        changes = ", ".join(f"{key}: {old.get(key)} there, {new.get(key)} now" for key in keys[:5])
        raise CheckpointError(
            f"The run in '{path.parent}' has another configuration ({changes}). "
            f"Go on with `perdure run {path} --out {path.parent} --resume`, or choose another --out."
        )
    since = [key for key in old if key not in now and key not in neutral]
    others = [*(key for key in written if key not in now), *since]
    if others and not (path.parent / "results.json").exists():
        raise CheckpointError(
            f"The run in '{path.parent}' was begun by an earlier version of perdure, whose keys were "
            f"others ({', '.join(others)}): its checkpoints belong to that version. Go on with it "
            "there, or choose another --out."
        )
