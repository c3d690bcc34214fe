"""What is added to the backbone changes its rows as the literal definitions say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perdure.backbones.additions import Additions, TokenResidual, block_numbers
from perdure.errors import BackboneError
from perdure.randomness import generator
from perdure.traits import Read
from tests.reference.small_vits import KINDS, SMALL, error, frozen, images, small_vit
from tests.reference.vit_literal import LiteralViT

RTOL = 1e-5
CLS: frozenset[Read] = frozenset({"cls"})
EVERY: frozenset[Read] = frozenset({"cls", "tokens", "cls_attention"})


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def drawn(name: str, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(0, name)) * 2 - 1


@torch.no_grad()
def check(kind: str, additions: Additions, **literal: object) -> None:
    """Compare class row (alone and among all), image tokens and class attention with the twin."""
    backbone, twin = frozen(kind), LiteralViT(small_vit(kind))
    passed = twin.forward(images(), **literal)  # type: ignore[arg-type]
    first, patches = backbone.spec.prefix_tokens, backbone.spec.patches
    features = backbone(images(), additions, EVERY)
    wanted = {
        "cls": passed.rows[:, 0],
        "tokens": passed.rows[:, first : first + patches],
        "cls_attention": passed.blocks[-1].weights[:, :, 0, first : first + patches].mean(1),
    }
    for name, theirs in wanted.items():
        assert error(getattr(features, name), theirs) < RTOL, name
    for read in (CLS, frozenset({"cls", "cls_attention"})):
        cut = backbone(images(), additions, read)
        for name in read:
            assert error(getattr(cut, name), wanted[name]) < RTOL, (name, read)
    # what was added did matter
    plain = twin.forward(images()).rows[:, 0]
    assert error(plain, wanted["cls"]) > 100 * RTOL


@pytest.mark.parametrize("kind", list(KINDS))
def test_prompts_are_keys_and_values(kind: str) -> None:
    spec = frozen(kind).spec
    tokens = {b: drawn(f"p{b}", 1, 4, spec.dim) for b in range(spec.blocks)}
    check(kind, Additions(tokens=tokens), tokens=tokens)


@pytest.mark.parametrize("blocks", [(0,), (1,), (5,)])
def test_prompts_in_some_blocks(blocks: tuple[int, ...]) -> None:
    tokens = {b: drawn(f"p{b}", 1, 3, 64) for b in blocks}
    check("test_vit", Additions(tokens=tokens), tokens=tokens)


def test_prompts_of_each_image() -> None:
    tokens = {0: drawn("own", 3, 2, 64), 5: drawn("own too", 3, 5, 64)}
    check("test_vit", Additions(tokens=tokens), tokens=tokens)


@pytest.mark.parametrize("count", [1, 3])
def test_prefix_is_raw_keys_and_values(kind: str, count: int) -> None:
    dim = frozen(kind).spec.dim
    prefix = {b: (drawn(f"k{b}", count, 3, dim), drawn(f"v{b}", count, 3, dim)) for b in (0, 2)}
    check(kind, Additions(prefix=prefix), prefix=prefix)


@pytest.mark.parametrize("count", [1, 3])
def test_input_tokens_join_once_and_travel(kind: str, count: int) -> None:
    extra = drawn("input", count, 4, frozen(kind).spec.dim)
    check(kind, Additions(input=extra), extra=extra)


@torch.no_grad()
@pytest.mark.parametrize(
    "read", [("input",), ("cls", "input"), ("input", "cls_attention"), ("cls", "tokens", "input")]
)
def test_rows_of_input_tokens(kind: str, read: tuple[Read, ...]) -> None:
    backbone, twin = frozen(kind), LiteralViT(small_vit(kind))
    extra = drawn("input", 1, 4, backbone.spec.dim)
    rows = twin.forward(images(), extra=extra).rows
    features = backbone(images(), Additions(input=extra), frozenset(read))
    assert features.input is not None
    assert error(features.input, rows[:, -4:]) < RTOL
    if "cls" in read:
        assert features.cls is not None
        assert error(features.cls, rows[:, 0]) < RTOL
    else:
        assert features.cls is None


@pytest.mark.parametrize("where", ["attention", "mlp"])
@pytest.mark.parametrize("block", [1, -1])
def test_residual_changes_tokens_given_their_keys(kind: str, where: str, block: int) -> None:
    index = block % frozen(kind).spec.blocks

    def change(x: Tensor, keys: Tensor) -> Tensor:
        return 0.3 * torch.tanh(x) * keys.flip(1)

    residual = TokenResidual(lambda x, keys: (change(x, keys), {}, {}), where)  # type: ignore[arg-type]
    check(kind, Additions(residual={index: residual}), residual={index: (where, change)})


def test_everything_at_once(kind: str) -> None:
    dim, last = frozen(kind).spec.dim, frozen(kind).spec.blocks - 1
    tokens = {b: drawn(f"p{b}", 1, 4, dim) for b in (0, 1, last)}
    prefix = {b: (drawn("k", 1, 4, dim), drawn("v", 1, 4, dim)) for b in (1, last)}
    extra = drawn("input", 1, 4, dim)
    additions = Additions(
        tokens=tokens,
        prefix=prefix,
        input=extra,
        residual={1: TokenResidual(lambda x, keys: (0.2 * keys, {}, {}))},
    )
    literal = {1: ("attention", lambda x, keys: 0.2 * keys)}
    check(kind, additions, tokens=tokens, prefix=prefix, extra=extra, residual=literal)


def test_residual_sees_the_keys_of_tokens_only() -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []

    def watch(x: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        seen.append((x.shape, keys.shape))
        return torch.zeros_like(x), {}, {}

    prompts = drawn("p", 1, 4, 64)
    additions = Additions(
        tokens={2: prompts}, prefix={2: (prompts, prompts)}, residual={2: TokenResidual(watch)}
    )
    frozen("test_vit")(images(), additions)
    assert seen == [(torch.Size([3, 5, 64]), torch.Size([3, 5, 64]))]


def test_penalties_of_additions_and_residuals_add_up() -> None:
    def tell(x: Tensor, keys: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        return torch.zeros_like(x), {"pull": torch.tensor(2.0)}, {"used": torch.tensor(5)}

    additions = Additions(
        residual={0: TokenResidual(tell), 5: TokenResidual(tell)},
        penalties={"pull": torch.tensor(1.0), "match": torch.tensor(3.0)},
    )
    features = frozen("test_vit")(images(), additions)
    assert {name: float(value) for name, value in features.penalties.items()} == {
        "pull": 5.0,
        "match": 3.0,
    }
    assert {name: int(value) for name, value in features.records.items()} == {"used": 5}


def test_gradients_of_what_is_added_equal_the_twins(kind: str) -> None:
    backbone, twin = frozen(kind), LiteralViT(small_vit(kind))
    dim, blocks = backbone.spec.dim, backbone.spec.blocks
    names = [*(f"p{b}" for b in range(blocks)), "k", "v", "input"]
    ours = {name: drawn(name, 1, 3, dim).requires_grad_() for name in names}
    theirs = {name: drawn(name, 1, 3, dim).double().requires_grad_() for name in names}
    direction = drawn("direction", 3, dim)

    cls = backbone(
        images(),
        Additions(
            tokens={b: ours[f"p{b}"] for b in range(blocks)},
            prefix={1: (ours["k"], ours["v"])},
            input=ours["input"],
        ),
    ).cls
    assert cls is not None
    (cls * direction).sum().backward()
    rows = twin.forward(
        images(),
        tokens={b: theirs[f"p{b}"] for b in range(blocks)},
        prefix={1: (theirs["k"], theirs["v"])},
        extra=theirs["input"],
    ).rows
    (rows[:, 0] * direction).sum().backward()
    for name in names:
        mine, wanted = ours[name].grad, theirs[name].grad
        assert mine is not None
        assert wanted is not None
        assert error(mine, wanted) < 10 * RTOL, name


def test_an_empty_addition_is_the_plain_backbone() -> None:
    backbone = frozen("test_vit")
    ours, plain = backbone(images(), Additions(), "all"), backbone(images(), None, "all")
    assert ours.cls is not None
    assert plain.cls is not None
    assert torch.equal(ours.cls, plain.cls)
    assert Additions().blocks == frozenset()


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ((6,), r"prompt_blocks=\[6\]: \[6\] outside the blocks of 'test_vit', which are 0 to 5"),
        ((0, -7), r"\[-7\] outside"),
        ((5, -1), r"repeated numbers in the blocks of 'test_vit'"),
    ],
)
def test_block_numbers_are_refused(blocks: tuple[int, ...], text: str) -> None:
    with pytest.raises(BackboneError, match=text):
        block_numbers(frozen("test_vit").spec, blocks, "prompt_blocks")


def test_block_numbers_count_from_either_end() -> None:
    assert block_numbers(frozen("test_vit").spec, (0, -1), "prompt_blocks") == (0, 5)
