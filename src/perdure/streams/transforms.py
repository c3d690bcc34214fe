"""Image transforms: PIL images to square uint8 pixels, augmentation by counters.

Normalisation is not done here: it belongs to the backbone and runs on its device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from perdure.errors import ConfigError
from perdure.randomness import derived_seed
from perdure.streams.catalog import TRANSFORMS

Side = Literal["train", "test"]
Step = Callable[[Image.Image], UInt8[Tensor, "3 s s"]]

BILINEAR = v2.InterpolationMode.BILINEAR
BICUBIC = v2.InterpolationMode.BICUBIC


@dataclass(frozen=True)
class Transform:
    """A pair of maps from an RGB image of any size to square uint8 pixels.

    Attributes:
        train: for training; draws from torch's CPU generator unless ``deterministic``.
        test: for everything else; draws nothing.
        deterministic: whether ``train`` draws nothing either.
    """

    train: Step
    test: Step
    deterministic: bool = False


@lru_cache(maxsize=64)
def build_transform(name: str, img_size: int) -> Transform:
    """Return the transform of that name for images of ``img_size`` x ``img_size`` pixels.

    Raises:
        UnknownNameError: no transform has that name.
        ConfigError: the size is not positive.

    Examples:
        >>> build_transform("plain", 32).test(Image.new("RGB", (50, 40))).shape
        torch.Size([3, 32, 32])
    """
    if img_size < 1:
        raise ConfigError(
            f"img_size={img_size} is too small. Allowed: 1 and above, such as img_size=224."
        )
    return TRANSFORMS[name](img_size)


def augment(
    transform: Transform, image: Image.Image, *, seed: int, task: int, epoch: int, index: int
) -> UInt8[Tensor, "3 s s"]:
    """Apply the training transform; its randomness is a function of the four counters alone.

    torch's global generator is left as it was.
    """
    if transform.deterministic:
        return transform.train(image)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the accelerators as well, which fork_rng does not restore.
        torch.default_generator.manual_seed(derived_seed(seed, "augment", task, epoch, index))
        return transform.train(image)


def _steps(*steps: Callable[[Image.Image], Image.Image]) -> Step:
    compose: Step = v2.Compose([*steps, v2.PILToTensor()])
    return compose


def _enlarged(size: int) -> int:
    """Return 256/224 of the size, in whole pixels."""
    return round(256 / 224 * size)


def _augmented(
    policy: v2.AutoAugmentPolicy, size: int, crop: v2.InterpolationMode = BILINEAR
) -> Sequence[Callable[[Image.Image], Image.Image]]:
    return v2.AutoAugment(policy, BILINEAR), v2.RandomResizedCrop(size, interpolation=crop)


@TRANSFORMS.register("plain")
def plain(img_size: int) -> Transform:
    """Resize to the square with bicubic interpolation, in training and test alike."""
    steps = _steps(v2.Resize((img_size, img_size), BICUBIC))
    return Transform(steps, steps, deterministic=True)


@TRANSFORMS.register("nsp2")
def nsp2(img_size: int) -> Transform:
    """VPT-NSP²'s transform, CIFAR-100 apart; everything bilinear.

    Training: AutoAugment with the ImageNet policy, random resized crop; no flip.
    Test: resize to a square of 256/224 of the size, centre crop.
    """
    side = _enlarged(img_size)
    return Transform(
        train=_steps(*_augmented(v2.AutoAugmentPolicy.IMAGENET, img_size)),
        test=_steps(v2.Resize((side, side), BILINEAR), v2.CenterCrop(img_size)),
    )


@TRANSFORMS.register("nsp2_cifar")
def nsp2_cifar(img_size: int) -> Transform:
    """VPT-NSP²'s transform on CIFAR-100.

    Training: AutoAugment with the CIFAR-10 policy (bilinear), random resized crop (bicubic).
    Test: resize to the square (bilinear).
    """
    return Transform(
        train=_steps(*_augmented(v2.AutoAugmentPolicy.CIFAR10, img_size, BICUBIC)),
        test=_steps(v2.Resize((img_size, img_size), BILINEAR)),
    )


@TRANSFORMS.register("clip_nsp2")
def clip_nsp2(img_size: int) -> Transform:
    """CLIP-NSP²'s transform.

    Training: AutoAugment with the ImageNet policy and random resized crop (bilinear), then CLIP's
    preprocessing. Test: CLIP's preprocessing alone, which is to resize the shorter side (bicubic)
    and to crop the centre.
    """
    clip = (v2.Resize(img_size, BICUBIC), v2.CenterCrop(img_size))
    return Transform(
        train=_steps(*_augmented(v2.AutoAugmentPolicy.IMAGENET, img_size), *clip),
        test=_steps(*clip),
    )


@TRANSFORMS.register("flip_crop")
def flip_crop(img_size: int) -> Transform:
    """Transform of most prompt methods: random crop and flip.

    Training: random resized crop (bilinear), horizontal flip of every other image.
    Test: resize the shorter side to 256/224 of the size (bicubic), centre crop.
    """
    return Transform(
        train=_steps(
            v2.RandomResizedCrop(img_size, interpolation=BILINEAR), v2.RandomHorizontalFlip()
        ),
        test=_steps(v2.Resize(_enlarged(img_size), BICUBIC), v2.CenterCrop(img_size)),
    )
