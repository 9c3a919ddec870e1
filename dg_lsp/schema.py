"""All settings as a JSON schema and as a table for people, both from `settings.py`.

`settings.schema.json` beside this file is what the editors' extensions read; `make settings`
writes it, and the table in README.md, anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dg_lsp.settings import EngineSettings, Settings, client_name

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}


def run(options: argparse.Namespace) -> int:
    """Prints the schema, or the table."""
    sys.stdout.write(table() if options.markdown else json.dumps(schema(), indent=2) + "\n")
    return 0


def schema() -> dict[str, Any]:
    """JSON schema of what a client may send."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of dg-lsp",
        **_object(Settings()),
    }


def table() -> str:
    """The settings as a Markdown table; those marked * are not taken from untrusted workspaces."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, default, property_ in _leaves(schema(), ""):
        shown = "none" if default is None else f"`{json.dumps(default)}`"
        meaning = property_["description"]
        if "enum" in property_:
            meaning += ": " + ", ".join(f"`{value}`" for value in property_["enum"])
        rows.append(f"| `{name}`{'*' * (property_['scope'] == 'machine')} | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def _leaves(schema_: dict[str, Any], where: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for key, property_ in schema_["properties"].items():
        if "properties" in property_:
            yield from _leaves(property_, f"{where}{key}.")
        else:
            yield where + key, property_["default"], property_


def _object(settings: Settings | EngineSettings, scope: str = "") -> dict[str, Any]:
    types = get_type_hints(type(settings))
    properties = {
        client_name(f.name): _property(f, types[f.name], getattr(settings, f.name), scope)
        for f in fields(settings)
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(field: Field[Any], hint: Any, default: Any, outer: str) -> dict[str, Any]:
    """What one field may be; `scope` is VS Code's word for who may set it."""
    rules = field.metadata
    scope = outer or ("machine" if rules["user_only"] else "resource")
    described = {"description": rules["doc"], "scope": scope}
    if is_dataclass(default):
        assert isinstance(default, EngineSettings)
        return {**described, **_object(default, scope)}
    bounds = {"exclusiveMinimum": rules["above"], "maximum": rules["most"]}
    return {
        **described,
        **_type(hint),
        "default": list(default) if isinstance(default, tuple) else default,
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }


def _type(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    options = [_JSON_TYPES[option] for option in get_args(hint) or (hint,)]
    return {"type": options[0] if len(options) == 1 else options}
