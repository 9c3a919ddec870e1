"""The schema says what `settings.parse` does, and what is generated from it is fresh."""

import json
from dataclasses import fields, is_dataclass, replace

import pytest

from dg_lsp import schema
from dg_lsp.settings import Settings, client_name, parse
from tests.editor import ROOT

STALE = "run `make settings`"


def leaves(settings=None, where=""):
    for f in fields(settings or Settings()):
        value = getattr(settings or Settings(), f.name)
        if is_dataclass(value):
            yield from leaves(value, f"{where}{client_name(f.name)}.")
        else:
            yield where + client_name(f.name)


def described(name):
    found = schema.schema()
    for part in name.split("."):
        found = found["properties"][part]
    return found


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def test_the_file_that_editors_read_is_fresh():
    text = (ROOT / "dg_lsp/settings.schema.json").read_text()
    assert json.loads(text) == schema.schema(), STALE


def test_the_table_in_the_readme_is_fresh():
    assert schema.table() in (ROOT / "README.md").read_text(), STALE


@pytest.mark.parametrize("name", list(leaves()))
def test_each_setting_is_described_with_a_default_that_is_its_own(name):
    property_ = described(name)
    assert len(property_["description"]) > 10
    assert parse(nested(name, property_["default"])) == (Settings(), [])
    assert f"| `{name}`" in schema.table()


WRONG = {"boolean": "x", "integer": 1.5, "number": "x", "string": 7, "array": "x"}


@pytest.mark.parametrize("name", list(leaves()))
def test_what_the_schema_refuses_is_refused(name):
    property_ = described(name)
    kind = property_["type"]
    wrong = [WRONG[kind if isinstance(kind, str) else kind[0]]]
    wrong += [bound for key in ["exclusiveMinimum"] if (bound := property_.get(key)) is not None]
    wrong += [property_["maximum"] + 1] if "maximum" in property_ else []
    wrong += ["none of these"] if "enum" in property_ else []
    for value in wrong:
        settings, messages = parse(nested(name, value))
        assert settings == Settings() and len(messages) == 1, value


@pytest.mark.parametrize("name", [name for name in leaves() if "enum" in described(name)])
def test_every_listed_value_is_taken(name):
    for value in described(name)["enum"]:
        assert parse(nested(name, value))[1] == []


def test_the_largest_number_is_still_taken():
    most = described("maxTokens")["maximum"]
    assert parse({"maxTokens": most}) == (replace(Settings(), max_tokens=most), [])


def test_what_a_workspace_may_not_set_is_marked():
    guarded = {name for name in leaves() if described(name)["scope"] == "machine"}
    assert {"engine.url", "engine.model", "engine.token", "engine.start", "logLevel"} <= guarded
    assert "maxTokens" not in guarded
    assert "| `engine.url`* |" in schema.table() and "| `maxTokens` |" in schema.table()
