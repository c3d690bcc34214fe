from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure.errors import ConfigError, UnknownNameError
from perdure.methods import METHODS, Method, Traits
from perdure.registry import Declaration, Registry

WITHOUT_TORCH = """
import sys
from perdure.methods import METHODS, MethodConfig
assert "nsp2" in METHODS and len(list(METHODS)) == len(METHODS)
assert METHODS.declared["nsp2"].traits.protects_features
assert METHODS.declared["l2p"].Config().pool == 10
METHODS.check("iprompt")
assert not {"torch", "timm", "torchvision", "sklearn", "perdure.methods.nsp2"} & set(sys.modules)
assert METHODS["nsp2"].__module__ == "perdure.methods.nsp2"
assert "perdure.methods.iprompt" not in sys.modules
"""


@pytest.mark.long
def test_names_and_declarations_need_no_torch() -> None:
    path = {**os.environ, "PYTHONPATH": str(Path(perdure.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, env=path)


@pytest.mark.parametrize("name", list(METHODS))
def test_class_has_what_is_declared(name: str) -> None:
    declared = METHODS.declared[name]
    assert METHODS[name].traits is declared.traits
    assert METHODS[name].Config is declared.Config
    assert METHODS[name].tuned is declared.tuned


def test_unknown_names_get_a_guess() -> None:
    for look_up in (METHODS.check, METHODS.__getitem__, METHODS.declared.__getitem__):
        with pytest.raises(UnknownNameError, match=r"Unknown method 'nspp2'\. Did you mean 'nsp2'"):
            look_up("nspp2")


@pytest.fixture
def mine() -> Iterator[type[Method]]:
    @METHODS.register("mine")
    class Mine(Method):
        traits = Traits(paper="", summary="a test's own")

    yield Mine
    METHODS.unregister("mine")
    assert "mine" not in METHODS


def test_method_from_outside_declares_itself(mine: type[Method]) -> None:
    assert METHODS["mine"] is mine
    assert METHODS.declared["mine"].traits is mine.traits
    assert METHODS.declared["mine"].Config is mine.Config


@pytest.mark.parametrize("name", ["mine", "l2p"])
def test_name_registered_twice_names_both_places(name: str, mine: type[Method]) -> None:
    first = "perdure.methods.l2p" if name == "l2p" else f"{mine.__module__}.{mine.__qualname__}"
    with pytest.raises(ConfigError) as caught:

        @METHODS.register(name)
        class Other(Method):
            traits = mine.traits

    assert str(caught.value).startswith(f"The method '{name}' is registered twice: by {first}")
    assert "Other. Give one of them another name." in str(caught.value)
    assert METHODS["mine"] is mine


def test_cell_of_a_notebook_may_be_run_again() -> None:
    registry: Registry[type, Declaration] = Registry("thing", Declaration)
    cell = "@registry.register('a')\nclass A: pass"
    for _ in range(2):
        exec(cell, {"registry": registry, "__name__": "__main__"})
    assert registry["a"].__name__ == "A"
    with pytest.raises(ConfigError, match=r"by __main__\.A and by __main__\.B"):
        exec(cell.replace("A", "B"), {"registry": registry, "__name__": "__main__"})


def test_lazy_package_lists_its_names_and_refuses_others() -> None:
    assert set(perdure.methods.__all__) <= set(dir(perdure.methods))
    with pytest.raises(
        AttributeError, match=r"module 'perdure\.methods' has no attribute 'Mehtod'"
    ):
        _ = perdure.methods.Mehtod  # type: ignore[attr-defined]
