"""Heads with options of their own: read, named, refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perdure.errors import ConfigError, UnknownNameError
from perdure.heads import HeadConfig, choose_head
from perdure.heads.choice import file_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ncm", "ncm"),
        ("ncm()", "ncm"),
        (" gaussian ( shrinkage = validation ) ", "gaussian(shrinkage=validation)"),
        ("gaussian(shrinkage=1)", "gaussian(shrinkage=1.0)"),
        ("gaussian(shrinkage=1e-1)", "gaussian(shrinkage=0.1)"),
        ('gaussian(shrinkage="analytic")', "gaussian(shrinkage=analytic)"),
        ("ridge(lift_width=300,lift=relu)", "ridge(lift=relu,lift_width=300)"),
        ("ridge(ridge_ratio=loo)", "ridge(ridge_ratio=loo)"),
        ("gaussian(drift=none)", "gaussian(drift=none)"),
        (
            "linear(head_inputs=centred, head_init=fresh)",
            "linear(head_init=fresh,head_inputs=centred)",
        ),
    ],
)
def test_a_choice_has_one_name_which_is_read_as_it(text: str, name: str) -> None:
    choice = choose_head(text)
    assert choice.name == name
    assert choose_head(name) == choice


def test_own_options_win_over_those_of_all_heads() -> None:
    shared = HeadConfig(head_inputs="centred", shrinkage="validation")
    linear = choose_head("linear(head_init=fresh)").options(shared)
    assert vars(linear) == {"head_init": "fresh", "head_inputs": "centred"}
    assert choose_head("gaussian(shrinkage=0.2)").options(shared).shrinkage == 0.2  # type: ignore[attr-defined]
    assert vars(choose_head("ncm").options(shared)) == {"drift": "none"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("gausian", UnknownNameError, "Unknown head 'gausian'. Did you mean 'gaussian'?"),
        (
            "gaussian(shrinkag=0.1)",
            UnknownNameError,
            "Unknown option 'shrinkag' of head 'gaussian'. Did you mean 'shrinkage'? Known: drift, ",
        ),
        ("ncm(shrinkage=0.1)", UnknownNameError, "of head 'ncm'. Known: drift."),
        (
            "language(templates=photo)",
            UnknownNameError,
            "Known: class_embeddings, drift, refine_epochs.",
        ),
        ("gaussian(0.1)", ConfigError, "'0.1' is not of the form option=value, as gaussian("),
        ("gaussian(shrinkage=0.1", ConfigError, "a head is a name, or a name with options"),
        ("gaussian(shrinkage=0.1,shrinkage=0.2)", ConfigError, "'shrinkage' is given twice"),
        ("gaussian(shrinkage=2)", ConfigError, "shrinkage=2: "),
        ("ridge(ridge_ratio=0)", ConfigError, "ridge_ratio=0: "),
        (
            "ridge(lift=relu,lift_width=20000)",
            ConfigError,
            "lift_width=20000: the Gram matrix of so many random features takes 3,200,320,008 bytes, "
            "allowed are 1,073,741,824. Take lift_width=11584 at most.",
        ),
        ("linear(head_init=frsh)", ConfigError, "Did you mean 'fresh'?"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as found:
        choose_head(text)
    assert said in str(found.value)


def test_names_of_files_are_safe_and_differ() -> None:
    names = [
        "ncm",
        "gaussian(shrinkage=0.1)",
        'a(x="b/c")',
        'a(x="b,c")',
        "a(x=b,c=1)",
        "a(x=[1,2])",
    ]
    files = [file_name(name) for name in names]
    assert files[:2] == ["ncm", "gaussian,shrinkage=0.1"]
    assert len(set(files)) == len(names)
    assert not set("".join(files)) & set('/\\:*?"<>|()[] ')


def test_heads_are_known_without_torch() -> None:
    code = (
        "import sys; from perdure.heads import HEADS, choose_head; choose_head('gaussian'); "
        "assert HEADS.declared['linear'].trained and list(HEADS); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
