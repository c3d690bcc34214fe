from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from perdure.errors import ConfigError, UnknownNameError
from perdure.streams import TRANSFORMS, augment, build_transform

RANDOM = ["clip_nsp2", "flip_crop", "nsp2", "nsp2_cifar"]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    draw = np.random.Generator(np.random.PCG64(0))
    return Image.fromarray(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def drawn(name: str, image: Image.Image, index: int = 0, **counters: int) -> Tensor:
    given = {"seed": 0, "task": 0, "epoch": 0, "index": index, **counters}
    return augment(build_transform(name, 16), image, **given)


def resized(image: Image.Image, size: list[int], how: v2.InterpolationMode) -> Tensor:
    return functional.pil_to_tensor(functional.resize(image, size, how))


def test_the_registry_knows_every_transform() -> None:
    assert list(TRANSFORMS) == ["clip_nsp2", "flip_crop", "nsp2", "nsp2_cifar", "plain"]
    assert [name for name in TRANSFORMS if build_transform(name, 8).deterministic] == ["plain"]
    with pytest.raises(UnknownNameError, match=r"Unknown transform 'nsp3'. Did you mean 'nsp2'\?"):
        build_transform("nsp3", 8)
    with pytest.raises(ConfigError, match="img_size=0 is too small"):
        build_transform("plain", 0)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 7), (7, 300), (60, 40)])
def test_both_sides_give_square_bytes(name: str, size: tuple[int, int]) -> None:
    transform = build_transform(name, 14)
    for side in (transform.train, transform.test):
        pixels = side(Image.new("RGB", size, (9, 99, 199)))
        assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (3, 14, 14))
    assert transform.test(Image.new("RGB", size, (9, 99, 199)))[:, 0, 0].tolist() == [9, 99, 199]


def test_the_test_sides_are_what_they_say(image: Image.Image) -> None:
    bilinear, bicubic = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC
    # 256/224 of 16 is 18.3, so 18; the image is 60 x 40 pixels.
    expected = {
        "plain": resized(image, [16, 16], bicubic),
        "nsp2": resized(image, [18, 18], bilinear)[:, 1:17, 1:17],
        "nsp2_cifar": resized(image, [16, 16], bilinear),
        "clip_nsp2": resized(image, [16, 24], bicubic)[:, :, 4:20],
        "flip_crop": resized(image, [18, 27], bicubic)[:, 1:17, 6:22],
    }
    for name, pixels in expected.items():
        assert torch.equal(build_transform(name, 16).test(image), pixels), name
    plain = build_transform("plain", 16)
    assert plain.train is plain.test


def test_the_published_size_is_224_of_256() -> None:
    # A vertical edge at a quarter of the width: 64 of 256, and 64 − 16 = 48 after the crop.
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[:, 128:] = 255
    row = build_transform("nsp2", 224).test(Image.fromarray(pixels))[0, 100]
    assert (int((row < 128).sum()), len(row)) == (48, 224)


@pytest.mark.parametrize("name", RANDOM)
def test_augmentation_is_a_function_of_its_counters(name: str, image: Image.Image) -> None:
    reference = drawn(name, image)
    assert torch.equal(drawn(name, image), reference)
    torch.manual_seed(123)
    assert torch.equal(drawn(name, image), reference)
    for counter in ("seed", "task", "epoch", "index"):
        others = [drawn(name, image, **{counter: value}) for value in (1, 2, 3)]
        assert not all(torch.equal(other, reference) for other in others), counter


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_augmentation_draws_from_nothing_else(name: str, image: Image.Image) -> None:
    """So many draws that every policy of AutoAugment is met."""
    drawn(name, image)  # builds the transform, which checks of types draw from `random` for
    python, legacy = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    before = torch.get_rng_state()
    first = [drawn(name, image, index) for index in range(150)]
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert repr(np.random.get_state()) == legacy  # noqa: NPY002
    random.seed(99)
    torch.manual_seed(99)
    second = [drawn(name, image, index) for index in range(150)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    random.setstate(python)


def test_augmentation_does_not_seed_the_accelerators(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("an accelerator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    with pytest.raises(AssertionError, match="an accelerator was seeded"):
        torch.manual_seed(0)
    drawn("nsp2", image)


def test_the_training_sides_are_what_they_say() -> None:
    """Traits that only the right parts have, over many draws of a smooth image."""
    x = np.linspace(0, 255, 48).astype(np.uint8)
    ramp = Image.fromarray(np.repeat(np.tile(x, (48, 1))[:, :, None], 3, axis=2))
    gray, mirrored = {}, {}
    for name in RANDOM:
        found = [drawn(name, ramp, index).float() for index in range(80)]
        gray[name] = all(torch.equal(image[0], image[1]) for image in found)
        slopes = [image[0, :, -1].mean() - image[0, :, 0].mean() for image in found]
        mirrored[name] = sum(slope < 0 for slope in slopes) / len(found)
    assert gray == dict.fromkeys(RANDOM, True)
    # A ramp falls only where it was flipped, inverted or solarised: half the time, or seldom.
    assert 0.3 < mirrored["flip_crop"] < 0.7
    assert all(mirrored[name] < 0.3 for name in RANDOM if name != "flip_crop")


@pytest.mark.parametrize(
    ("name", "policy", "crop"),
    [
        ("nsp2", v2.AutoAugmentPolicy.IMAGENET, "bilinear"),
        ("nsp2_cifar", v2.AutoAugmentPolicy.CIFAR10, "bicubic"),
        ("clip_nsp2", v2.AutoAugmentPolicy.IMAGENET, "bilinear"),
    ],
)
def test_the_published_training_sides(
    name: str, policy: v2.AutoAugmentPolicy, crop: str, image: Image.Image
) -> None:
    literal = v2.Compose(
        [
            v2.AutoAugment(policy, v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(16, interpolation=v2.InterpolationMode(crop)),
            v2.PILToTensor(),
        ]
    )
    for seed in range(20):
        torch.manual_seed(seed)
        expected = literal(image)
        torch.manual_seed(seed)
        assert torch.equal(build_transform(name, 16).train(image), expected)
