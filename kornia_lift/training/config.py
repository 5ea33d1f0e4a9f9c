"""Training options: frozen dataclasses to and from TOML and JSON. An unknown key is an error, never ignored.

Written here rather than taken from a library, so that an error names the option by its path in the file, what is valid
there and what was given.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kornia_lift._io import parse_json, read_text
from kornia_lift.training.limits import check_limits

T = TypeVar("T")


class ConfigError(ValueError):
    """An option that does not exist, or has a value that it cannot have."""


@dataclass(frozen=True)
class LoopConfig:
    """Options of :func:`kornia_lift.training.loop.fit`.

    Args:
        steps: total number of optimiser steps.
        optimizer: ``"adam"`` (the authors' TensorFlow code), ``"adamw"`` or ``"sgd"`` (DeepDesc).
        learning_rate: highest learning rate.
        weight_decay: of the optimiser.
        momentum: of SGD.
        schedule: ``"constant"``, or ``"linear"`` or ``"cosine"`` down to 0 at the last step.
        warmup_steps: steps of linear increase at the start; with ``max_minutes`` it ends after a tenth of the time at
            the latest.
        clip_norm: largest norm of the gradient; ``None`` does not clip.
        precision: type of the matrix products: ``"float32"``, ``"bfloat16"`` (float32 on a CPU that does not multiply
            in it, which would be slower), or ``"float16"`` (CUDA only, with loss scaling). Weights and optimiser stay
            in float32.
        ema_decay: keep an exponential moving average of the weights, used for validation and the result; shorter at
            the start, ``min(ema_decay, n / (n + 10))`` after n steps.
        validate_every: steps between two validations; with ``max_minutes`` there is also one after every tenth of the
            time, as long as validations take at most a quarter of it.
        checkpoint_every: largest number of steps between two checkpoints.
        checkpoint_minutes: longest time between two checkpoints, minutes.
        log_every: steps between two lines of the log.
        max_minutes: time for this stage from its first step on, all resumptions together; it then stops as if killed,
            after saving. A schedule that decays then follows the clock where that is ahead of the steps: such a run is
            not repeated to the bit, and raising the minutes of an earlier run raises its rate again.
        seed: of the batches, at least 0; a batch depends on it and on the step only.
        prefetch: draw the next batch in a thread while this one trains; changes no result.
        workers: draw batches ahead in this many processes instead, where a GPU trains faster than one
            process draws; changes no result. Only on systems that fork, and for stages whose batches need no GPU.
        tensorboard: also write TensorBoard files.

    """

    steps: int = 10_000
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    ema_decay: float | None = None
    validate_every: int = 500
    checkpoint_every: int = 500
    checkpoint_minutes: float = 2.0
    log_every: int = 20
    max_minutes: float | None = None
    seed: int = 0
    prefetch: bool = False
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        whole = ("steps", "validate_every", "checkpoint_every", "log_every")
        check_limits(self, *whole, at_least=1, error=ConfigError)
        check_limits(self, "warmup_steps", "weight_decay", "workers", "seed", at_least=0, error=ConfigError)
        check_limits(self, "momentum", at_least=0, below=1, error=ConfigError)
        check_limits(
            self, "learning_rate", "clip_norm", "max_minutes", "checkpoint_minutes", above=0, error=ConfigError
        )
        check_limits(self, "ema_decay", above=0, below=1, error=ConfigError)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a ``.toml`` or ``.json`` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ConfigError: if it is neither, or is not well formed.

    """
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ConfigError(f"a config is a .toml or .json file, got {path}")
    if not path.exists():
        raise FileNotFoundError(f"no config file {path}")
    try:
        text = read_text(path, limit=2**20)
        mapping = tomllib.loads(text) if path.suffix == ".toml" else parse_json(text)
    except RecursionError:
        raise ConfigError(f"{path} is not well formed: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not well formed: {error}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} must hold a table of options, got {type(mapping).__name__}")
    return mapping


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "", base: T | None = None) -> T:
    """Build a dataclass, nested ones included, from plain values.

    Args:
        cls: the dataclass.
        mapping: options by name.
        where: dotted name of the table, for the error text.
        base: gives what is absent; by default the defaults of the class. A nested table starts from the default that
            the outer class has for it, so naming one option of it keeps the others.

    Raises:
        ConfigError: naming the key, and the valid ones or the expected type.

    """
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"unknown option {prefix}{key[:80]}; valid are {', '.join(sorted(fields))}")
    defaults = {name: getattr(base, name) if base is not None else _default(f) for name, f in fields.items()}
    missing = [name for name, value in defaults.items() if name not in mapping and value is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"missing option {prefix}{missing[0]}: it has no default")
    values = {key: _convert(hints[key], value, prefix + key, defaults[key]) for key, value in mapping.items()}
    try:
        return cls(**(defaults | values))
    except ValueError as error:  # also from options that do not use ConfigError
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain values that JSON can hold; inverse of :func:`from_mapping`."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _convert(hint: Any, value: Any, where: str, default: Any = dataclasses.MISSING) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, where, default)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, get_args(hint)))}, got {_shown(value)}")
        return value
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table of options, got {_shown(value)}")
        base = default if isinstance(default, hint) else None  # type: ignore[arg-type]
        return from_mapping(hint, value, where, base)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where} must be finite, got an integer of {len(str(abs(value)))} digits") from None
    if hint is Path and isinstance(value, str):
        if "\0" in value:
            raise ConfigError(f"{where} is not a path: {_shown(value)}")
        return Path(value)
    # bool is an int to Python, not to a reader of a config
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {hint.__name__}, got {_shown(value)}")
    if hint is int and abs(value) >= 2**63:
        raise ConfigError(f"{where} must have at most 64 bits, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as an error shows it, however long it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def _convert_union(options: tuple[Any, ...], value: Any, where: str, default: Any) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    errors = []
    for option in options:
        try:
            return _convert(option, value, where, default)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _convert_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} must be a list, got {_shown(value)}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(items[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(items):
        raise ConfigError(f"{where} must have {len(items)} values, got {len(value)}")
    return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))
