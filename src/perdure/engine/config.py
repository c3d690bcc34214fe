"""What a run is: one flat set of keys, checked before anything is computed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError

from perdure.errors import ConfigError, did_you_mean, unknown_name
from perdure.heads import HEADS, HeadConfig, TrainedHead
from perdure.language import TEMPLATES
from perdure.methods import METHODS, Method, MethodConfig
from perdure.presets.sections import find_preset
from perdure.streams import SOURCES, TRANSFORMS, build_transform, source_of

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, the method's and heads' own options apart.

    Attributes:
        method: a registered method.
        heads: heads to evaluate; empty for the method's own.
        seed: of class order (where it is drawn), initialisation, batches and augmentation.
        backbone: an index-wheel name or a timm name.
        weights: ``auto``, ``random`` or a local file.
        img_size: side in pixels; None for the backbone's own.
        precision: compute type; ``auto`` is bf16 where the hardware has it.
        device: ``auto``, ``cpu`` or ``cuda``.
        stream: where the images come from.
        path: folder, table or data set of one's own, or folder of a published data set's files.
        data: sets ``stream`` and ``path``: a folder, a table (CSV, TSV, Parquet), ``hf:NAME``, or
            the name of a stream.
        image_column: of a table or data set, where it cannot be told.
        label_column: their classes, likewise.
        domain_column: their domains, likewise.
        increment: what every task brings that is new: ``classes``, ``domains`` (the same classes in
            another domain) or ``classes+domains`` (new classes of one domain).
        domains: those wanted, in order; empty for all.
        tasks: ``Bm-Incn``, or task sizes as a list or joined by ``+``; not read where every domain
            is a task.
        class_order: ``nsp2``, ``pilot``, ``sorted`` or a file with a class per line.
        imbalance: how many times more training images the most frequent class keeps than the
            rarest, with an exponential fall between them; None keeps all.
        images_per_class: cap on training images per class; None for all.
        test_images_per_class: cap on test images per class; None for all.
        test_fraction: share held out for testing where a folder has no test split.
        validation_fraction: share of the training images held out for validation.
        transform: the pair of training and test transforms.
        skip_unreadable: leave out images that cannot be decoded instead of refusing the folder.
        epochs: passes over a task's training images.
        batch_size: images per training step.
        lr: learning rate of Adam.
        schedule: how the learning rate falls within a task.
        milestones: fractions of a task's epochs at which ``schedule = "milestones"`` divides by ten.
        weight_decay: L2 penalty, added to the gradient.
        eval_batch_size: images per forward in surveys and evaluation; does not change results.
        cache_queries: keep the plain pass's features of a task's training images, so that two-pass
            methods run that pass once per image; for transforms that do not augment.
        workers: processes that decode and augment; ``auto`` chooses by the machine; does not change
            results.
        checkpoint_every: training steps between checkpoints; does not change results.
        logger: ``tensorboard`` writes figures into the run's folder as it goes; does not change
            results.
    """

    method: str
    heads: tuple[str, ...] = ()
    seed: Count = 0
    backbone: str = "clip_vit_base_patch16"
    weights: str = "auto"
    img_size: Positive | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    stream: str = "digits"
    path: str | None = None
    data: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    domain_column: str | None = None
    increment: Literal["classes", "domains", "classes+domains"] = "classes"
    domains: tuple[str, ...] = ()
    tasks: str | tuple[Positive, ...] = "B0-Inc2"
    class_order: str = "nsp2"
    imbalance: Annotated[float, Ge(1)] | None = None
    images_per_class: Positive | None = None
    test_images_per_class: Positive | None = None
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    validation_fraction: Fraction = 0.0
    transform: str = "plain"
    skip_unreadable: bool = False
    epochs: Positive = 10
    batch_size: Positive = 32
    lr: Annotated[float, Gt(0)] = 0.01
    schedule: Literal["milestones", "cosine", "constant"] = "milestones"
    milestones: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.5, 0.8)
    weight_decay: Annotated[float, Ge(0)] = 5e-5
    eval_batch_size: Positive = 64
    cache_queries: bool = False
    workers: Count | Literal["auto"] = "auto"
    checkpoint_every: Positive = 50
    logger: Literal["tensorboard"] | None = None


NEUTRAL = ("device", "eval_batch_size", "workers", "checkpoint_every", "logger")
"""Keys that may differ between a run and its resumption: they do not change results."""


@dataclass(frozen=True)
class Config:
    """A run with the options of its method and heads.

    Attributes:
        run: the run's own keys.
        method: options of the method, an instance of its ``Config``.
        heads: options of the heads.
        preset: the preset it came from, or the file's path.
    """

    run: RunConfig
    method: MethodConfig
    heads: HeadConfig = field(default_factory=HeadConfig)
    preset: str | None = None

    @property
    def method_class(self) -> type[Method]:
        """The method's class."""
        return METHODS[self.run.method]

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads that are evaluated."""
        return self.run.heads or self.method_class.traits.heads

    @property
    def built_heads(self) -> tuple[str, ...]:
        """The heads that are evaluated, and the one that training goes through."""
        traits = self.method_class.traits
        trained = (traits.trained_head,) if traits.trains else ()
        return tuple(dict.fromkeys((*self.head_names, *trained)))

    @property
    def needs_text(self) -> bool:
        """Whether a head asks for text features of the classes."""
        guided = any(HEADS[name].needs_projection for name in self.built_heads)
        return guided and self.heads.class_embeddings == "text"

    def flat(self) -> dict[str, Any]:
        """Every key with its value, as a preset would hold it; None is left out."""
        merged = {**_fields(self.run), **_fields(self.heads), **_fields(self.method)}
        return {key: value for key, value in merged.items() if value is not None}

    def hash(self) -> str:
        """A digest of every key that may change a result."""
        kept = {key: value for key, value in self.flat().items() if key not in NEUTRAL}
        text = json.dumps(kept, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> Config:
        """The same run with some keys changed, checked again."""
        return make_config({**self.flat(), **changes}, self.preset)


def make_config(values: Mapping[str, Any], preset: str | None = None) -> Config:
    """Check flat keys and build the configuration.

    Args:
        values: keys of `RunConfig`, `HeadConfig` and the named method's ``Config``.
        preset: where they came from.

    Raises:
        ConfigError: an unknown key or a value that its key does not allow.
    """
    if "method" not in values:
        raise ConfigError(f"No method named. Add method=NAME, one of: {', '.join(METHODS)}.")
    method = METHODS[str(values["method"])]
    if values.get("data") is not None:
        values = {**values, **source_of(str(values["data"])), "data": None}
    parts: dict[type[Any], dict[str, Any]] = {RunConfig: {}, HeadConfig: {}, method.Config: {}}
    known = {f.name: part for part in parts for f in dataclasses.fields(part)}
    for key, value in values.items():
        if key not in known:
            raise unknown_name("key", key, known, f" of a run with method '{values['method']}'")
        parts[known[key]][key] = value
    run, heads, options = (_build(part, given) for part, given in parts.items())
    config = Config(run, options, heads, preset)
    SOURCES[config.run.stream]
    TRANSFORMS[config.run.transform]
    if config.run.cache_queries and not build_transform(config.run.transform, 1).deterministic:
        raise ConfigError(
            f"cache_queries=true: transform '{config.run.transform}' augments, so an image's query "
            "changes from epoch to epoch. Take transform=plain, or leave cache_queries out."
        )
    _check_heads(config)
    return config


def load_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset or a TOML file and apply ``key=value`` overrides.

    Args:
        name: a preset, as ``digits/nsp2``, or the path of a file that ends in ``.toml``.
        overrides: such as ``epochs=2``; a value is read as TOML, else taken as text.

    Raises:
        ConfigError: no such preset, an unreadable file, or a wrong key or value.
    """
    values = _read_toml(Path(name)) if name.endswith(".toml") else read_preset(name)
    return make_config({**values, **read_overrides(overrides)}, preset=name)


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return keys and values of ``key=value``, the last of a key counting.

    Raises:
        ConfigError: one is not of this form.
    """
    values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"Override '{override}' is not of the form key=value, as epochs=2.")
        values[key.strip()] = parse_value(text.strip())
    return values


def read_preset(name: str) -> dict[str, Any]:
    """Keys that the files of presets set for one of them, its method included.

    A key that the method lacks passes it by, as long as another method of its section has it.

    Raises:
        UnknownNameError: no such preset, or a key that no method of its section has.
        ConfigError: the name is not of the form of a preset's.
    """
    preset = find_preset(name)
    values: dict[str, Any] = {"method": preset.method}
    own = _keys(preset.method)
    for section in preset.sections:
        for key, value in section.values.items():
            if key in own:
                values[key] = value
            elif not any(key in _keys(method) for method in section.methods):
                where = f" in section '{section.title}' of {section.file}"
                raise unknown_name("key", key, own, where)
    return values


@cache
def _keys(method: str) -> frozenset[str]:
    parts = (RunConfig, HeadConfig, METHODS[method].Config)
    return frozenset(field.name for part in parts for field in dataclasses.fields(part))


def _fields(part: Any) -> dict[str, Any]:
    return {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}


_Checks = tuple[dict[str, Any], Callable[[Any], Any]]
_CHECKS: dict[type[Any], _Checks] = {}


def _checks(part: type[Any]) -> _Checks:
    """Types of the keys, and what validates them: to make it takes longer than to use it."""
    if part not in _CHECKS:
        _CHECKS[part] = typing.get_type_hints(part), TypeAdapter(part).validate_python
    return _CHECKS[part]


def _build(part: type[Any], given: dict[str, Any]) -> Any:
    hints, validate = _checks(part)
    origins: dict[str, Any] = {key: typing.get_origin(hint) for key, hint in hints.items()}
    given = {
        key: (value,) if origins[key] is tuple and not isinstance(value, list | tuple) else value
        for key, value in given.items()
    }
    try:
        return validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        key = str(first["loc"][0]) if first["loc"] else "?"
        hint = hints.get(key)
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        guess = did_you_mean(str(given.get(key)), [str(c) for c in choices])
        raise ConfigError(f"{key}={given.get(key)!r}: {first['msg']}.{guess}") from None


def _check_heads(config: Config) -> None:
    traits = config.method_class.traits
    for head in config.head_names:
        HEADS[head]
    if traits.fixed_heads and config.head_names != traits.heads:
        raise ConfigError(
            f"heads={list(config.head_names)}: method '{config.run.method}' works with "
            f"heads={list(traits.heads)} only. Leave heads out."
        )
    if len(set(config.head_names)) != len(config.head_names):
        raise ConfigError(f"heads={list(config.head_names)}: each head at most once.")
    for head in config.head_names:
        if issubclass(HEADS[head], TrainedHead) and head != traits.trained_head:
            raise ConfigError(
                f"heads={list(config.head_names)}: method '{config.run.method}' trains under "
                f"'{traits.trained_head}', so '{head}' would stay untrained. Name "
                f"{traits.trained_head}, or heads in closed form, as gaussian."
            )
    TEMPLATES[config.heads.templates]
    chooses = config.heads.shrinkage == "validation" and "gaussian" in config.head_names
    if chooses and not config.run.validation_fraction:
        raise ConfigError(
            "shrinkage='validation' needs validation images: add validation_fraction=0.25, or "
            "leave shrinkage out."
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No file '{path}'. Presets: `perdure ls presets`.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read as TOML: {error}") from None


def parse_value(text: str) -> Any:
    """Read a value as TOML has it, else as text; ``none`` and lists without brackets too.

    Raises:
        ConfigError: a number that is not finite.
    """
    if text in ("none", "None"):
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        lowered = text.lower()
        return lowered == "true" if lowered in ("true", "false") else _maybe_list(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"'{text}' is not a finite number.")
    return value


def _maybe_list(text: str) -> Any:
    """Read ``linear,gaussian`` as a list; anything else stays text."""
    return [part.strip() for part in text.split(",")] if "," in text else text
