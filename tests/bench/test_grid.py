import json
from dataclasses import replace

import pytest

from bench import grid, quality, systems
from bench.systems import Answer
from engine import chosen
from engine.config import EngineConfig
from tests.bench.test_quality import hole
from tests.engine import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "block"
    tiny.diffusion_gemma(directory, seed=4, num_hidden_layers=2)
    file = directory / "generation_config.json"
    few = {**json.loads(file.read_text()), "max_denoising_steps": 2}
    file.write_text(json.dumps(few))
    return directory


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A model of dg-mini's kind: a mask for noise, and no chat."""
    directory = tmp_path_factory.mktemp("models") / "little"
    tiny.llama(directory, seed=4, bos_token_id=2)
    config = json.loads((directory / "config.json").read_text())
    config["canvas"] = {
        "length": 97,
        "noise": "mask",
        "mask_id": 0,
        "empty_id": 3,
        "shifted": True,
        "sealed_suffix": True,
        "self_conditioning": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class Unloaded:
    """An engine without weights, which can only be set up another way."""

    def __init__(self, config):
        self.config = config

    def under(self, config):
        return Unloaded(config)


@pytest.fixture
def asked(monkeypatch, model):
    """What each row asks for one hole: configuration, request and length told."""
    asked = []

    def filled(engine, request, length=None, valid=None):
        asked.append((engine.config, request, length, valid))
        return Answer(text="", ms=1)

    monkeypatch.setattr(systems, "filled", filled)
    of_row = {}
    for name, system in grid.of_model(Unloaded(EngineConfig(model=model))).items():
        system(hole())
        of_row[name.partition(",")[0]] = list(asked)
        asked.clear()
    return of_row


def test_each_row_asks_for_the_same_hole_under_its_changes(asked, model):
    assert list(asked) == [row.name for row in grid.ROWS]
    for row in grid.ROWS:
        config, request, length, valid = asked[row.name][-1]
        changed = {name: getattr(config, name) for name in row.changes}
        assert changed == row.changes
        assert config == replace(EngineConfig(model=model), cache_prefixes=1, **changed)
        assert request.prefix.endswith(hole().prefix)
        assert (length is not None) == row.told
        assert (valid is not None) == row.checked
        if valid:
            assert valid("y = x") and not valid("y = = x")


def test_a_row_of_typing_has_answered_one_keystroke_earlier(asked):
    for row in grid.ROWS:
        prefixes = [request.prefix for _, request, *_ in asked[row.name]]
        earlier = [prefixes[0], prefixes[0] + " "] if row.typing else prefixes[:1]
        assert prefixes == earlier


def test_changes_are_parts_of_the_configuration_and_add_up():
    for row in grid.ROWS:
        EngineConfig(model="m", **row.changes)
    told = {tuple(row.changes.items()) for row in grid.ROWS if not row.told}
    assert len(told) == len(grid.ROWS) - 1, "two rows are the same"


def test_rows_in_which_nothing_would_change_are_left_out(model, masked):
    names = {
        directory.name: [
            title.removesuffix(f", {directory.name}")
            for title in grid.of_model(Unloaded(EngineConfig(model=directory)))
        ]
        for directory in (model, masked)
    }
    assert names["block"] == [one.name for one in grid.ROWS]
    left = {
        "verify + leave one out",
        "verify + long holes",
        "verify + raw prefix",
        "hole in the chat",
    }
    assert names["little"] == [one.name for one in grid.ROWS if one.name not in left]


def row(name, key, *, right, forwards, passed=None):
    raw = {"passed": passed, "exact": right}
    return {
        "system": f"{name}, m",
        "hole": key,
        "cluster": key,
        "raw": raw,
        "forwards": forwards,
    }


def results(**worth):
    """Ten holes in each row: how many are right, and forwards."""
    given = {
        one.name: worth.get(one.name.strip("+ ").partition(" ")[0], (0, 9)) for one in grid.ROWS
    }
    return [
        row(name, f"k{i}", right=i < right, forwards=forwards)
        for name, (right, forwards) in given.items()
        for i in range(10)
    ]


def test_recommended_is_the_row_that_is_right_most_often_without_being_told():
    text = grid.recommended(results(oracle=(10, 1), fixed=(2, 5), drafts=(4, 9)), "m")
    assert text.startswith("### Recommended for m: + drafts\n")
    assert (
        "`canvas_drafts=True, canvas_warm_start=False, long_holes=None, "
        "infill=InfillConfig(probe=True)`"
    ) in text
    assert "- + drafts: 40.0 %" in text
    assert "- fixed 32: 20.0 %, +20.0 [" in text
    assert "oracle" not in text


def test_of_equal_rows_the_one_with_the_fewest_forwards_is_recommended():
    text = grid.recommended(results(fixed=(4, 6), drafts=(4, 5), warm=(4, 7)), "m")
    assert text.startswith("### Recommended for m: + drafts\n")


def test_unit_tests_count_before_equality():
    rows = results(fixed=(3, 5), drafts=(3, 4))
    for one in rows:
        if one["system"] == "fixed 32, m":
            one["raw"]["passed"] = True
    assert grid.recommended(rows, "m").startswith("### Recommended for m: fixed 32\n")


@pytest.mark.parametrize("kind", ["model", "masked"])
def test_each_row_fills_a_hole(kind, request):
    directory = request.getfixturevalue(kind)
    engine = systems.load(directory, device="cpu", threads=1)
    for title, fill in grid.of_model(engine).items():
        answer = fill(hole(middle="y = x"))
        assert (answer.mode, answer.error) == ("diffusion", ""), title


def test_the_grid_is_one_command_and_goes_on_where_it_was(model, tmp_path, capsys, monkeypatch):
    few = [one for one in grid.ROWS if one.name in ("oracle", "fixed 32", "hole in the chat")]
    monkeypatch.setattr(grid, "ROWS", few)
    tree = tmp_path / "package"
    tree.mkdir()
    (tree / "module.py").write_text("a = 1\nb = 2\n")
    out = tmp_path / "out"
    arguments = [
        *("--grid", "--model", str(model), "--tree", str(tree), "--out", str(out)),
        *("--holes", "1", "--threads", "1", "--systems", "copy"),
    ]
    assert quality.main(arguments) == 0
    text = capsys.readouterr().out
    file = out / "results.jsonl"
    whole = file.read_text()
    ran = {json.loads(line)["system"] for line in whole.splitlines()}
    assert ran == {"copy", *(f"{one.name}, block" for one in grid.ROWS)}
    assert "### All holes" in text
    best = text.partition("### Recommended for block: ")[2].partition("\n")[0]
    (changes,) = (one.changes for one in grid.ROWS if one.name == best)
    given = json.loads((out / "block.filling.json").read_text())
    assert given == chosen.as_json(changes)
    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert quality.main(arguments) == 0
    assert len(file.read_text().splitlines()) == len(whole.splitlines())
