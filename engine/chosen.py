"""What an evaluation chose for a model: `filling.json` in its directory, in place of our defaults.

`dg-lsp bench quality --grid` writes such files. What somebody sets by hand has precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from engine.config import EngineConfig, InfillConfig, LongHoleConfig
from engine.errors import ConfigError
from engine.hf_config import read_json

FILE = "filling.json"
_GROUPS = {"infill": InfillConfig, "long_holes": LongHoleConfig}
_NAMES = ("template", "canvas_drafts", "canvas_warm_start", *_GROUPS)


def with_chosen(config: EngineConfig) -> EngineConfig:
    """`config` with what its model's directory says of fields that are at their defaults.

    Raises ConfigError, which names the file, for one that cannot be used.
    """
    file = config.model / FILE
    if not file.is_file():
        return config
    given = read_json(file)
    if unknown := sorted(set(given) - set(_NAMES)):
        raise ConfigError(f"{file} has {unknown[0]!r}; it may have {', '.join(_NAMES)}")
    default = EngineConfig(model=config.model)
    open_ = [name for name in given if getattr(config, name) == getattr(default, name)]
    try:
        return replace(config, **{name: _value(name, given[name]) for name in open_})
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{file} cannot be used: {error}") from None


def as_json(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of EngineConfig as such a file holds them: of groups what differs from the defaults."""
    return {
        name: differing(value) if is_dataclass(value) else value for name, value in changes.items()
    }


def differing(group: Any) -> dict[str, Any]:
    """The fields of a configuration, all of which have defaults, that are not at these."""
    given = asdict(group)
    return {f.name: given[f.name] for f in fields(group) if given[f.name] != f.default}


def _value(name: str, given: Any) -> Any:
    if name not in _GROUPS or given is None:
        return given
    tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in dict(given).items()}
    return _GROUPS[name](**tuples)
