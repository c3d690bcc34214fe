"""Registries: components by name, imported on first use, with a did-you-mean for unknown names."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from perdure.errors import ConfigError, unknown_name

T = TypeVar("T")
D = TypeVar("D", bound="Declaration")


@dataclass(frozen=True)
class Declaration:
    """Declaration of a component: attributes that are known without importing it.

    A kind of component with such attributes has a subclass of its own, with a field for each.
    """

    @classmethod
    def of(cls: type[D], component: Any) -> D:
        """Read a component's declaration off its attributes."""
        return cls(**{f.name: getattr(component, f.name) for f in dataclasses.fields(cls)})

    def fill(self, component: Any) -> None:
        """Give a component the attributes that are declared here, so that none is written twice."""
        for field in dataclasses.fields(self):
            setattr(component, field.name, getattr(self, field.name))


class Registry(Mapping[str, T], Generic[T, D]):
    """A mapping from names to components of one kind.

    Names and declarations are known from the start. A component that was declared with the module
    that registers it is imported when it is asked for; iteration, ``in`` and `check` import nothing.

    Args:
        kind: kind of component, for error messages (``"method"``).
        declaration: class of the declarations.
    """

    def __init__(self, kind: str, declaration: type[D]) -> None:
        self.kind = kind
        self._declaration = declaration
        self._declared: dict[str, D] = _Declarations(kind)
        self._modules: dict[str, str] = {}
        self._components: dict[str, T] = {}

    @property
    def declared(self) -> Mapping[str, D]:
        """Declarations by name; nothing is imported."""
        return self._declared

    def declare(self, name: str, module: str, declaration: D) -> None:
        """Announce the component that ``module`` registers under this name when it is imported."""
        self._modules[name] = module
        self._declared[name] = declaration

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds a component under ``name``.

        Where the name was declared for the module that the component stands in, the component gets
        the declared attributes; else its declaration is read off its own.

        Raises:
            ConfigError: the name is taken.
        """

        def add(component: T) -> T:
            self._refuse_taken(name, component)
            if name in self._modules:
                self._declared[name].fill(component)
            else:
                self._declared[name] = self._declaration.of(component)
            self._components[name] = component
            return component

        return add

    def unregister(self, name: str) -> None:
        """Remove a component that was registered without a declaration."""
        del self._components[name], self._declared[name]

    def check(self, name: str) -> None:
        """Refuse a name that is not known.

        Raises:
            UnknownNameError: no such name; the error lists the known ones.
        """
        self._declared[name]

    def doc(self, name: str) -> str:
        """Return the docstring of a component; read from the source where it is not imported yet.

        Raises:
            UnknownNameError: no such name; the error lists the known ones.
        """
        self.check(name)
        if name in self._components:
            return inspect.getdoc(self._components[name]) or ""
        spec = importlib.util.find_spec(self._modules[name])
        source = Path(str(spec and spec.origin)).read_text("utf-8")
        return next(
            (
                ast.get_docstring(node) or ""
                for node in ast.parse(source).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef)
                if any(
                    ast.unparse(decorator).endswith(f".register('{name}')")
                    for decorator in node.decorator_list
                )
            ),
            "",
        )

    def __getitem__(self, name: str) -> T:
        """Return the component called ``name``, imported on first use.

        Raises:
            UnknownNameError: no such name; the error lists the known ones.
        """
        self.check(name)
        if name not in self._components:
            importlib.import_module(self._modules[name])
        return self._components[name]

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._declared))

    def __len__(self) -> int:
        return len(self._declared)

    def _refuse_taken(self, name: str, component: T) -> None:
        module, place = _module(component), _place(component)
        first = _place(self._components[name]) if name in self._components else None
        if first is None and self._modules.get(name, module) != module:
            first = self._modules[name]
        again = place == first and module == "__main__"  # a notebook's cell is run anew
        if first is not None and not again:
            raise ConfigError(
                f"The {self.kind} '{name}' is registered twice: by {first} and by {place}. "
                "Give one of them another name."
            )


class _Declarations(dict[str, D]):
    """Declarations by name, with a did-you-mean for unknown ones."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, name: str) -> D:
        raise unknown_name(self._kind, name, self)


def _module(component: Any) -> str:
    return str(getattr(component, "__module__", type(component).__module__))


def _place(component: Any) -> str:
    return f"{_module(component)}.{getattr(component, '__qualname__', repr(component))}"
