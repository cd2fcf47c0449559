"""Resolve a configuration from its layers and remember where each value came from.

preset <- an earlier run <- recipe <- environment <- flags <- ``--set``. An unknown key is an error that names the
nearest one there is.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dhdiff_ray.config.base import Frozen, Rank
from dhdiff_ray.config.schema import Config

ENV_PREFIX = "DHDIFF__"


class ConfigError(ValueError):
    """A recipe, preset, variable or ``--set`` that cannot be used; the message says what to type instead."""


class Loaded(Frozen):
    """A configuration with the origin of each value that is not a default: dotted key -> origin."""

    config: Config
    origins: dict[str, str]


def presets() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("dhdiff_ray.config") / "presets"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_config(
    recipe: str | Path | None = None,
    *,
    preset: str | None = None,
    base: Mapping[str, Any] | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    sets: tuple[str, ...] = (),
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Resolve a configuration: preset <- base <- recipe <- environment <- flags <- ``--set``.

    Args:
        recipe: a TOML file; its top-level ``preset = "name"`` names the preset to start from.
        preset: a preset that wins over the recipe's.
        base: an earlier run's ``config.json``, for verbs that go on with a run.
        flags: dotted key -> (flag as typed, value).
        sets: ``dotted.key=value`` with the value written as TOML; a bare word is taken as a string.
        environ: where ``DHDIFF__SECTION__KEY`` variables are looked up.

    Raises:
        ConfigError: an unreadable file, an unknown key or a value that does not fit.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    written = _read_toml(Path(recipe)) if recipe else {}
    named = preset or written.pop("preset", None)
    written.pop("preset", None)
    if named:
        if named not in presets():
            raise ConfigError(f"no preset {named!r}; there are: {', '.join(presets())}")
        content = (resources.files("dhdiff_ray.config") / "presets" / f"{named}.toml").read_text()
        layers.append((f"preset {named}", tomllib.loads(content)))
    if base:
        layers.append(("run", dict(base)))
    if recipe:
        layers.append((str(recipe), written))
    for key, text in sorted(environ.items()):
        if key.startswith(ENV_PREFIX):
            dotted = key[len(ENV_PREFIX) :].lower().replace("__", ".")
            layers.append((f"${key}", {dotted: _toml_value(text)}))
    for dotted, (flag, value) in (flags or {}).items():
        layers.append((flag, {dotted: value}))
    for text in sets:
        dotted, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text!r} has no '='; write --set train.steps=60")
        layers.append((f"--set {text}", {dotted.strip(): _toml_value(value.strip())}))

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for dotted, value in _flatten(layer):
            origins[dotted] = origin
            _assign(values, dotted, value, origin)
    try:
        return Loaded(config=Config.model_validate(values), origins=origins)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None


def with_values(config: Config, values: Mapping[str, object], origin: str) -> Config:
    """The same configuration with some dotted keys set otherwise.

    Raises:
        ConfigError: an unknown key or a value that does not fit; the message names ``origin``.
    """
    flags = {dotted: (origin, value) for dotted, value in values.items()}
    return load_config(base=config.model_dump(mode="json"), flags=flags, environ={}).config


def ranks(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, Rank]:
    """Every knob: dotted key -> who turns it, in the order of the schema."""
    ranked: dict[str, Rank] = {}
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            ranked |= ranks(kind, f"{prefix}{name}.")
        else:
            ranked[prefix + name] = next((mark for mark in info.metadata if isinstance(mark, Rank)), Rank.ordinary)
    return ranked


def nearest(word: str, names: list[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        dotted = ".".join(str(part) for part in problem["loc"])
        origin = next((o for k, o in origins.items() if k == dotted or k.startswith(dotted + ".")), "")
        where = f" (from {origin})" if origin else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {dotted!r}{where}{nearest(dotted, list(ranks()))}")
        else:
            lines.append(f"{dotted} = {problem['input']!r}{where}: {problem['msg']}")
    return "\n".join(lines)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no recipe {str(path)!r}; recipes are TOML files such as jobs/demo.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _flatten(layer: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _assign(values: dict[str, Any], dotted: str, value: object, origin: str) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{dotted!r} (from {origin}) goes into {part!r}, which is a value, not a section")
    values[last] = value
