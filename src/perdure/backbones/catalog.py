"""Backbone by name: what a name means, and how the backbone is built."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perdure.backbones.sources import (
    WHEELS,
    Progress,
    WheelEntry,
    hub_file,
    wheel_weights,
)
from perdure.cache import expanded
from perdure.errors import (
    BackboneError,
    ConfigError,
    UnknownNameError,
    did_you_mean,
    unknown_name,
)

if TYPE_CHECKING:
    from torch import nn

    from perdure.backbones.frozen import FrozenBackbone
    from perdure.types import BackboneSpec

Precision = Literal["fp32", "bf16"]

WITH_TEXTS = ("_clip_", "_pe_core_")
"""In names of architectures whose classifier is the image projection."""
_PREFIXES = ("hf-hub:", "hf_hub:", "timm/")


@dataclass(frozen=True)
class Described:
    """Resolved backbone name: architecture and weights, before anything is built or fetched.

    Attributes:
        name: the name in full: of a wheel, or timm's with its tag.
        architecture: timm architecture.
        img_size: native side of the image, in pixels.
        mean: per-channel mean of the images it was trained on, in [0, 1].
        std: per-channel standard deviation of those images.
        projection: width of the image projection kept as head; 0 for none.
        repository: where the model hub keeps the weights; None where it does not.
        filename: the file there; None for the usual ones.
        wheel: the index wheel that holds the weights; None for hub names.
    """

    name: str
    architecture: str
    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    projection: int = 0
    repository: str | None = None
    filename: str | None = None
    wheel: WheelEntry | None = None


def describe(name: str) -> Described:
    """Resolve a backbone name.

    Args:
        name: an index-wheel name, or the name of a model of timm: with or without tag, with or
            without ``timm/`` or ``hf-hub:`` in front. Without a tag, timm's default.

    Raises:
        UnknownNameError: no such backbone.
    """
    wheel = WHEELS.get(name)
    if wheel is not None:
        return Described(
            name=wheel.name,
            architecture=wheel.architecture,
            img_size=wheel.img_size,
            mean=wheel.mean,
            std=wheel.std,
            projection=wheel.projection,
            wheel=wheel,
        )
    import timm

    bare = _known_to_timm(name)
    config = timm.get_pretrained_cfg(bare)
    if config is None:
        raise UnknownNameError(f"timm has no configuration for '{name}'; name it with a tag.")
    architecture = bare.partition(".")[0]
    fine_tuned = "_ft_in" in (config.tag or "")
    with_texts = any(part in architecture for part in WITH_TEXTS)
    return Described(
        name=f"{architecture}.{config.tag}" if config.tag else architecture,
        architecture=architecture,
        img_size=config.input_size[-1],
        mean=config.mean,
        std=config.std,
        projection=config.num_classes if with_texts and not fine_tuned else 0,
        repository=config.hf_hub_id,
        filename=config.hf_hub_filename,
    )


def is_of_timm(name: str) -> bool:
    """Tell from timm's source whether it may have such a model; False where it certainly has not.

    timm is not imported for it, which takes seconds.
    """
    architecture = _without_prefix(name).partition(".")[0]
    spec = importlib.util.find_spec("timm")
    folders = spec.submodule_search_locations if spec is not None else None
    return architecture.isidentifier() and any(
        f"def {architecture}(" in text or f"'{architecture}'" in text
        for folder in folders or ()
        for text in (file.read_text("utf-8") for file in Path(folder, "models").glob("*.py"))
    )


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _known_to_timm(name: str) -> str:
    """Return timm's present name for ``name``, or raise with the closest one."""
    import timm

    bare = _without_prefix(name)
    bare = timm.models.get_deprecated_models().get(bare) or bare
    architecture, _, tag = bare.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        raise UnknownNameError(
            f"Unknown backbone '{name}'.{did_you_mean(architecture, [*WHEELS, *known])} Known: "
            f"{', '.join(WHEELS)}, and the {len(known)} models of timm; "
            "`perdure ls backbones` lists the usual ones."
        )
    tags = [full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        raise UnknownNameError(
            f"Unknown weights '{tag}' of backbone '{architecture}'.{did_you_mean(tag, tags)} "
            f"Known: {', '.join(sorted(filter(None, tags)))}."
        )
    return bare


def create_backbone(  # noqa: PLR0913  options, each with a default
    name: str,
    *,
    weights: str | Path = "auto",
    img_size: int | None = None,
    precision: str = "auto",
    device: str = "cpu",
    attention: str = "auto",
    fold: Literal["auto", "off"] = "auto",
    seed: int = 0,
    on_progress: Progress | None = None,
    check: Callable[[BackboneSpec], None] | None = None,
) -> FrozenBackbone:
    """Build a frozen backbone. The caller's random state is left as it was.

    Classifiers are left out; CLIP's image projection stays.

    Args:
        name: see ``describe``.
        weights: ``"auto"`` for the published ones, ``"random"`` for ones drawn from ``seed``, or a
            file: ``.safetensors``, ``.npz`` of the original ViT release, or what ``torch.save``
            wrote, tensors only.
        img_size: side of the images in pixels, in steps of the patch where there is one; native when
            None. Position embeddings are resampled, and windows scaled, as timm does.
        precision: ``"auto"``, ``"fp32"``, ``"tf32"`` or ``"bf16"``; see ``resolve_precision``.
        device: ``"auto"`` or a torch device.
        attention: ``"auto"``, ``"fused"`` or ``"products"``; see ``choose_kernel``.
        fold: ``"auto"`` or ``"off"``; see `FrozenBackbone`.
        seed: seed of random weights: the same seed gives the same bits.
        on_progress: receives a line before each step that takes long.
        check: may refuse the backbone by its spec, before any weight is read or fetched; what it
            raises is raised here.

    Raises:
        UnknownNameError: no such backbone.
        ConfigError: a size, precision, device or ``weights`` that is not allowed.
        BackboneError: weights are missing or do not fit.
        ChecksumError: weights that are not what was expected.
        OutputError: a cache that cannot be written.
    """
    from perdure.backbones.convert import load_state, load_weights
    from perdure.backbones.families import family_of, freeze
    from perdure.backbones.sizes import options_for, resize

    described = describe(name)
    place = resolve_device(device)
    kind = resolve_precision(precision, place)
    if place.startswith("cuda"):
        _use_tf32(precision == "tf32")
    file = _weight_file(weights)
    side = described.img_size if img_size is None else img_size
    options = options_for(described.name, described.architecture, described.img_size, side)
    model = _build(described, seed, **options)
    if check is not None:
        check(family_of(model).describe(model, described.name, side))
    if file is not None:
        load_weights(model, file)
    elif weights != "random" and described.wheel is not None:
        load_state(model, wheel_weights(described.wheel, on_progress), f"'{described.name}'")
    elif weights != "random":
        load_weights(model, _hub_weights(described, on_progress))
    if not options and side != described.img_size:
        resize(model, side)
    return freeze(
        model,
        name=described.name,
        img_size=side,
        mean=described.mean,
        std=described.std,
        precision=kind,
        device=place,
        attention=attention,
        fold=fold,
    )


def _weight_file(weights: str | Path) -> Path | None:
    if weights in ("auto", "random"):
        return None
    file = expanded(weights)
    if not file.is_file():
        raise ConfigError(
            f"weights='{weights}' is neither 'auto' nor 'random' nor a file."
            f"{did_you_mean(str(weights), ('auto', 'random'))}"
        )
    return file


def _hub_weights(described: Described, on_progress: Progress | None) -> Path:
    if described.repository is None:
        raise BackboneError(
            f"The model hub has no weights for '{described.name}'. Get them from their publisher, "
            "if there are any, and give the file by weights=PATH; or weights='random'."
        )
    if on_progress is not None:
        on_progress(f"Weights of {described.name} from the model hub, unless cached")
    return hub_file(described.name, described.repository, described.filename)


def _build(described: Described, seed: int, **options: Any) -> nn.Module:
    """The model with random weights."""
    import timm
    import torch

    from perdure.randomness import derived_seed

    name = described.architecture if described.wheel else described.name
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "backbone", described.architecture))
        model: nn.Module = timm.create_model(name, num_classes=described.projection, **options)
        return model


def resolve_device(device: str) -> str:
    """Return the device that ``device`` stands for.

    Args:
        device: a torch device, or ``"auto"``: CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device, or not on this machine.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as problem:
        raise ConfigError(
            f"Unknown device '{device}'. Allowed: auto, cpu, cuda, cuda:N, mps."
        ) from problem
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"Device '{device}' was asked for, and {torch.cuda.device_count()} CUDA devices are "
            "visible. Type device=cpu or device=auto."
        )
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            f"Device '{device}' was asked for: it is that of Apple's processors, with a PyTorch made "
            "for them. Type device=cpu or device=auto."
        )
    return device


def _use_tf32(wanted: bool) -> None:
    """Let CUDA round the factors of float32 matrix products to TF32's 10 bits, or forbid it."""
    import torch

    products = torch.backends.cuda.matmul
    if (products.fp32_precision == "tf32") != wanted:
        products.fp32_precision = "tf32" if wanted else "ieee"


def resolve_precision(precision: str, device: str) -> Precision:
    """Return the compute type that ``precision`` stands for on ``device``.

    ``"auto"`` is bf16 where the hardware has it (CUDA; a CPU with AVX512-BF16 or AMX-BF16), else
    fp32. An explicit ``"bf16"`` is obeyed everywhere; a CPU without it is then slower than in fp32.
    ``"tf32"`` is fp32 whose products CUDA may round.

    Args:
        precision: ``"auto"``, ``"fp32"``, ``"tf32"`` or ``"bf16"``.
        device: device returned by ``resolve_device``.

    Raises:
        ConfigError: another word.
    """
    import torch

    from perdure.backbones.attention import bf16_units

    if precision in ("fp32", "tf32"):
        return "fp32"
    if precision == "bf16":
        return "bf16"
    if precision != "auto":
        raise unknown_name("precision", precision, ("auto", "fp32", "tf32", "bf16"))
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and bf16_units()
    return "bf16" if native else "fp32"
