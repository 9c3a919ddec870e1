"""What an evaluation chose for a model is used by an engine, unless somebody says otherwise."""

import json
from dataclasses import replace

import pytest

from engine import chosen
from engine.config import EngineConfig, InfillConfig, LongHoleConfig
from engine.errors import ConfigError
from engine.runtime import Engine
from tests.engine import tiny


def write(directory, given) -> EngineConfig:
    text = given if isinstance(given, str) else json.dumps(given)
    (directory / "filling.json").write_text(text)
    return EngineConfig(model=directory)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"canvas_drafts": True, "long_holes": None},
        {"infill": InfillConfig(probe=True, lengths=(1, 2), drop_behind=None)},
        {"template": "hole", "long_holes": LongHoleConfig(steps=3)},
    ],
)
def test_what_is_written_is_what_is_read(tmp_path, changes):
    config = write(tmp_path, chosen.as_json(changes))
    assert chosen.with_chosen(config) == replace(config, **changes)


def test_only_what_differs_is_written():
    changes = {"infill": InfillConfig(read=4), "canvas_drafts": False}
    assert chosen.as_json(changes) == {"infill": {"read": 4}, "canvas_drafts": False}


def test_what_somebody_set_has_precedence(tmp_path):
    config = write(tmp_path, {"template": "hole", "canvas_drafts": True})
    read = chosen.with_chosen(replace(config, template="raw"))
    assert (read.template, read.canvas_drafts) == ("raw", True)


def test_without_a_file_nothing_changes(tmp_path):
    config = EngineConfig(model=tmp_path)
    assert chosen.with_chosen(config) is config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[1]", "filling.json must hold a JSON object"),
        ({"canvas_draft": True}, "filling.json has 'canvas_draft'; it may have template, canvas_"),
        ({"infill": {"probes": 1}}, "filling.json cannot be used: .*'probes'"),
        ({"infill": {"kept": 0}}, "filling.json cannot be used: kept must be a number above 0"),
        ({"infill": 3}, "filling.json cannot be used: "),
        ({"template": "talk"}, "filling.json cannot be used: template must be one of"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, given, message):
    config = write(tmp_path, given)
    with pytest.raises(ConfigError, match=message):
        chosen.with_chosen(config)


def test_an_engine_is_set_up_as_its_models_directory_says(tmp_path):
    tiny.diffusion_gemma(tmp_path, seed=4)
    config = write(tmp_path, {"infill": {"probe": False}})
    assert Engine.load(replace(config, device="cpu")).config.infill == InfillConfig(probe=False)
