"""Settings: what the client or the command line sent, resolved once and frozen.

The client's names are these in camelCase (`maxTokens`). Knows nothing of LSP messages or the
engine's insides.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.request import MAX_HOLE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine answers. `url` names a running one; empty means this user's own engine."""

    model: str = "dg-mini"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    url: str = ""
    token: str = field(default="", repr=False)
    start: bool = True
    start_timeout_s: float = field(default=300.0, metadata={"above": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one language server session.

    Without `deadline_ms` the engine takes the time it needs; with it, what is there by then is
    the answer.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    enabled: bool = True
    disabled_languages: tuple[str, ...] = ()
    max_tokens: int = field(default=64, metadata={"above": 0, "most": MAX_HOLE_TOKENS})
    deadline_ms: float | None = field(default=None, metadata={"above": 0})
    log_level: Literal["error", "warning", "info", "debug"] = "warning"


T = TypeVar("T", EngineSettings, Settings)


def parse(data: object, base: Settings | None = None) -> tuple[Settings, list[str]]:
    """Lays the client's JSON over `base` (the defaults) and says what of it could not be used.

    What is absent, null or wrong keeps its value in `base`.
    """
    return _parse(data, base or Settings(), "")


def _parse(data: object, base: T, where: str) -> tuple[T, list[str]]:
    if data is None or data == []:  # an empty Lua table arrives as a list
        return base, []
    if not isinstance(data, Mapping):
        return base, [_wrong(f"setting {where[:-1]}" if where else "settings", "an object", data)]
    names = {_camel(f.name): f.name for f in fields(base)}
    types_ = get_type_hints(type(base))
    values: dict[str, Any] = {}
    messages: list[str] = []
    for key, value in data.items():
        if key not in names:
            messages.append(_unknown(where, key, list(names)))
            continue
        name = names[key]
        old = getattr(base, name)
        if is_dataclass(types_[name]):
            values[name], inner = _parse(value, old, f"{where}{key}.")
            messages += inner
        elif value is not None:
            try:
                values[name] = _value(types_[name], value, base, name)
            except _Unusable as wanted:
                shown = value if _field(base, name).repr else "(not shown)"
                messages.append(
                    f"{_wrong(f'setting {where}{key}', str(wanted), shown)}; {old!r} stays"
                )
    return replace(base, **values), messages


class _Unusable(Exception):
    """Carries what was wanted instead."""


def _value(hint: Any, value: object, base: T, name: str) -> Any:
    """`value` as the field's type and within its bounds, else _Unusable."""
    if get_origin(hint) in (types.UnionType, Union):
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise _Unusable("one of " + ", ".join(map(repr, get_args(hint))))
    if get_origin(hint) is tuple:
        if value == {} or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            return tuple(value)
        raise _Unusable("a list of strings")
    if hint in (int, float):
        return _number(hint, value, _field(base, name).metadata)
    if isinstance(value, hint):
        return value
    raise _Unusable({bool: "true or false", str: "a string"}[hint])


def _number(kind: type[int] | type[float], value: object, bounds: Mapping[str, float]) -> float:
    above, most = bounds.get("above", 0), bounds.get("most")
    wanted = "a whole number" if kind is int else "a number"
    wanted += f" above {above}" + (f" and at most {most}" if most is not None else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _Unusable(wanted)
    if value != kind(value) or value <= above or (most is not None and value > most):
        raise _Unusable(wanted)
    return kind(value)


def _field(base: T, name: str) -> Any:
    return next(f for f in fields(base) if f.name == name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _wrong(what: str, wanted: str, value: object) -> str:
    return f"{what} must be {wanted}, got {str(value)[:80]!r}"


def _unknown(where: str, key: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
    return f"setting {where}{str(key)[:80]} is unknown; did you mean {where}{near[0]}?"
