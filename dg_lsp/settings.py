"""Settings: what the client or the command line sent, resolved once and frozen.

The client's names are these in camelCase (`maxTokens`). Knows nothing of LSP messages or the
engine's insides.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.request import MAX_HOLE_TOKENS

D = TypeVar("D")

_MOST = 1e300


def _setting(
    default: D,
    doc: str,
    *,
    secret: bool = False,
    user_only: bool = False,
    above: float | None = None,
    most: float | None = None,
) -> D:
    """A field with all that is to know of it: `doc` is what users read, everywhere.

    `secret` values are never shown; `user_only` ones are not taken from a workspace that is not
    trusted; numbers are above `above` and at most `most`.
    """
    metadata = {"doc": doc, "user_only": user_only, "above": above, "most": most}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine answers. `url` names a running one; empty means this user's own engine."""

    model: str = _setting("dg-mini", "a name that `dg-lsp pull` knows, or a model directory")
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "where the model runs")
    url: str = _setting(
        "", "use this engine (`http://HOST:PORT`, `https://HOST` or `unix:PATH`) and start none"
    )
    token: str = _setting("", "what the engine at `engine.url` asks for", secret=True)
    start: bool = _setting(True, "whether to start an engine where none runs")
    start_timeout_s: float = _setting(300.0, "how many seconds to wait for it", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one language server session."""

    engine: EngineSettings = field(
        default_factory=EngineSettings, metadata={"doc": "which engine answers", "user_only": True}
    )
    enabled: bool = _setting(True, "whether anything is offered")
    disabled_languages: tuple[str, ...] = _setting(
        (), "language ids in which nothing is offered, not even by command"
    )
    excluded_files: tuple[str, ...] = _setting(
        (),
        "more files that no model is shown, beside those that look like secrets: patterns as in a "
        ".gitignore",
        user_only=True,
    )
    completion_menu: bool = _setting(
        True, "whether to answer in the completion menu where an editor has no inline completion"
    )
    max_tokens: int = _setting(
        64, "the longest completion, in tokens", above=0, most=MAX_HOLE_TOKENS
    )
    deadline_ms: float | None = _setting(
        None,
        "what is there after so many milliseconds is the answer; without it the engine takes the "
        "time it needs",
        above=0,
    )
    min_score: float = _setting(
        0.05, "how likely right an answer must be to be shown unasked, 0 (any) to 1", most=1
    )
    ask_ahead: bool = _setting(
        True, "whether the engine looks for what may come next while a completion is shown"
    )
    statistics: bool = _setting(
        True, "whether figures (never text) are kept in a local file; `dg-lsp stats` shows them"
    )
    log_level: Literal["error", "warning", "info", "debug"] = _setting(
        "warning", "how much is logged; source text only with `debug`", user_only=True
    )
    trusted: bool | None = _setting(
        None, "whether the user trusts the workspace; sent by the editor", user_only=True
    )


T = TypeVar("T", EngineSettings, Settings)


def parse(data: object, base: Settings | None = None) -> tuple[Settings, list[str]]:
    """Lays the client's JSON over `base` (the defaults) and says what of it could not be used.

    What is absent, null or wrong keeps its value in `base`.
    """
    return _parse(data, base or Settings(), "")


def resolve(data: object, base: Settings | None = None) -> tuple[Settings, list[str]]:
    """Like `parse`, with what the workspace says (`workspace` in `data`) laid over the user's own.

    A workspace sets what is `user_only` if the client says that it is `trusted`. Where a client
    says that it is not, and does not tell whose settings are whose, all count as the workspace's.
    """
    base = base or Settings()
    own, workspace = data, None
    if isinstance(data, Mapping):
        own = {key: value for key, value in data.items() if key != "workspace"}
        workspace = data.get("workspace")
    settings, messages = parse(own, base)
    refused: list[str] = []
    if settings.trusted is False and workspace is None:
        own, refused = _without_user_only(own)
        settings, messages = parse(own, replace(base, trusted=False))
    elif not settings.trusted:
        workspace, refused = _without_user_only(workspace)
    laid, more = parse(workspace, settings)
    return replace(laid, trusted=settings.trusted), [*messages, *more, *refused]


def _without_user_only(data: object) -> tuple[object, list[str]]:
    """What an untrusted workspace may say, and a message for each setting that it may not."""
    if not isinstance(data, Mapping):
        return data, []
    guarded = {client_name(f.name) for f in fields(Settings) if f.metadata["user_only"]}
    messages = [
        f"setting {name} is not taken from a workspace that is not trusted"
        for key in data.keys() & guarded - {"trusted"}
        for name in _names(str(key), data[key])
    ]
    return {key: value for key, value in data.items() if key not in guarded}, sorted(messages)


def _names(key: str, value: object) -> list[str]:
    return [f"{key}.{inner}" for inner in value] if isinstance(value, Mapping) else [key]


def _parse(data: object, base: T, where: str) -> tuple[T, list[str]]:
    if data is None or data == []:  # an empty Lua table arrives as a list
        return base, []
    if not isinstance(data, Mapping):
        return base, [_wrong(f"setting {where[:-1]}" if where else "settings", "an object", data)]
    names = {client_name(f.name): f.name for f in fields(base)}
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


def _number(
    kind: type[int] | type[float], value: object, bounds: Mapping[str, float | None]
) -> float:
    above, most = bounds["above"], bounds["most"]
    limits = [f"above {above}"] * (above is not None) + [f"at most {most}"] * (most is not None)
    wanted = f"a {'whole ' if kind is int else ''}number {' and '.join(limits)}".rstrip()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unusable(wanted)
    if (
        not -_MOST < value < _MOST  # neither infinite nor an integer that no float can be
        or value != kind(value)
        or (above is not None and value <= above)
        or (most is not None and value > most)
    ):
        raise _Unusable(wanted)
    return kind(value)


def _field(base: T, name: str) -> Any:
    return next(f for f in fields(base) if f.name == name)


def client_name(name: str) -> str:
    """A field's name as clients write it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _wrong(what: str, wanted: str, value: object) -> str:
    return f"{what} must be {wanted}, got {str(value)[:80]!r}"


def _unknown(where: str, key: object, known: list[str]) -> str:
    import difflib  # which nobody else needs

    near = difflib.get_close_matches(str(key)[:80], known, n=1, cutoff=0.0)
    return f"setting {where}{str(key)[:80]} is unknown; did you mean {where}{near[0]}?"
