"""Listed backbones: those worth naming, by use, with size, licence and what is at hand.

Read off by hand, so that a list waits for neither torch nor timm; tests compare all of it with timm.
"""

from __future__ import annotations

from dataclasses import dataclass

from perdure.backbones.sources import WHEELS, Use, hub_file_at_hand

USES: dict[Use, str] = {
    "features": "Best features",
    "text": "Text-guided: features that are compared with texts",
    "small": "Small and fast",
    "trial": "For trials of the software",
}
"""Titles, in the order of the list."""

SIZES: dict[str, tuple[float, float]] = {
    "convnext_tiny": (27.8, 8.9),
    "eva02_base_patch14_224": (85.8, 46.3),
    "mobilenetv4_conv_small": (2.5, 0.37),
    "mobilenetv4_conv_small_050": (0.96, 0.127),
    "swin_tiny_patch4_window7_224": (27.5, 9.0),
    "test_vit": (0.31, 0.075),
    "vit_base_patch16_224": (85.8, 35.1),
    "vit_base_patch16_clip_quickgelu_224": (85.8, 35.1),
    "vit_base_patch16_dinov3": (85.6, 47.1),
    "vit_pe_core_base_patch16_224": (92.9, 35.6),
    "vit_small_patch14_dinov2": (22.1, 93.4),
    "vit_small_patch16_dinov3": (21.6, 12.5),
    "vit_tiny_patch16_224": (5.5, 2.5),
}
"""By architecture: million parameters without a classifier, GFLOP of an image at its native size."""

_APACHE, _DINOV3 = "Apache-2.0", "DINOv3 License"
_PAPERS, _DINOV2 = "vit_base_patch16_224.augreg_in21k", "vit_small_patch14_dinov2.lvd142m"
_FT, _DINO = "vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit_base_patch16_224.dino"
_HUB: tuple[tuple[Use, str, str, int, str], ...] = (
    ("features", _PAPERS, _APACHE, 224, "ImageNet-21k; the papers' backbone"),
    ("features", _FT, _APACHE, 224, "ImageNet-21k, then -1k"),
    ("features", _DINO, _APACHE, 224, "DINO, self-supervised on ImageNet-1k"),
    ("features", _DINOV2, _APACHE, 518, "DINOv2-S, self-supervised"),
    ("features", "vit_base_patch16_dinov3.lvd1689m", _DINOV3, 256, "DINOv3-B, self-supervised"),
    (
        "features",
        "eva02_base_patch14_224.mim_in22k",
        "MIT",
        224,
        "EVA-02, CLIP's features predicted",
    ),
    ("features", "swin_tiny_patch4_window7_224.ms_in22k", "MIT", 224, "Swin-T, ImageNet-22k"),
    ("features", "convnext_tiny.fb_in22k", _APACHE, 224, "ConvNeXt-T, ImageNet-22k"),
    (
        "text",
        "vit_base_patch16_clip_quickgelu_224.openai",
        "MIT",
        224,
        "CLIP, image projection kept",
    ),
    (
        "text",
        "vit_pe_core_base_patch16_224.fb",
        _APACHE,
        224,
        "PE, image projection kept",
    ),
    ("small", "vit_small_patch16_dinov3.lvd1689m", _DINOV3, 256, "DINOv3-S, self-supervised"),
    ("small", "vit_tiny_patch16_224.augreg_in21k", _APACHE, 224, "ViT-Ti, ImageNet-21k"),
    ("small", "mobilenetv4_conv_small.e2400_r224_in1k", _APACHE, 224, "convolutions, ImageNet-1k"),
    (
        "small",
        "mobilenetv4_conv_small_050.e3000_r224_in1k",
        _APACHE,
        224,
        "the same at half the width",
    ),
    ("trial", "test_vit.r160_in1k", _APACHE, 160, "a vision transformer in small"),
)


@dataclass(frozen=True)
class Entry:
    """Catalogue entry of a backbone: one line of ``perdure ls backbones``.

    Attributes:
        name: name of the backbone, as typed.
        use: what it is good for, of `USES`.
        architecture: timm architecture.
        source: ``"package index"`` or ``"model hub"``.
        licence: licence of the weights.
        img_size: native side of the image, in pixels.
        parameters: millions, without a classifier; None where not known.
        gflop: operations of an image at its native size, multiply-adds counted as two.
        about: one line.
        at_hand: whether the weights are on this machine.
    """

    name: str
    use: Use
    architecture: str
    source: str
    licence: str
    img_size: int
    parameters: float | None
    gflop: float | None
    about: str
    at_hand: bool


def entries() -> list[Entry]:
    """Return the backbones worth listing, by use: those of the package index, and usual hub names.

    Any other model of timm that gives one feature vector per image can be named too.
    """
    listed = [
        _entry(
            wheel.use,
            wheel.name,
            wheel.architecture,
            source="package index",
            licence=wheel.licence,
            img_size=wheel.img_size,
            about=wheel.about,
            at_hand=wheel.converted.is_file(),
        )
        for wheel in WHEELS.values()
    ]
    listed += [
        _entry(
            use,
            name,
            name.partition(".")[0],
            source="model hub",
            licence=licence,
            img_size=img_size,
            about=about,
            at_hand=hub_file_at_hand(f"timm/{name}"),
        )
        for use, name, licence, img_size, about in _HUB
    ]
    order = list(USES)
    return sorted(listed, key=lambda entry: order.index(entry.use))


def licence_of(name: str) -> str | None:
    """Return the licence of a backbone's published weights, None where perdure does not know it.

    Args:
        name: full name, as `Described.name`.
    """
    return next((entry.licence for entry in entries() if entry.name == name), None)


def _entry(use: Use, name: str, architecture: str, **about: object) -> Entry:
    parameters, gflop = SIZES.get(architecture, (None, None))
    return Entry(
        name=name,
        use=use,
        architecture=architecture,
        parameters=parameters,
        gflop=gflop,
        **about,  # type: ignore[arg-type]
    )
